// Read runs with clients of npm, and print what they found as JSON.
// Usage: node runs.mjs CLIENT URL

const [client, url] = process.argv.slice(2)
const post = (path) => fetch(`${url}${path}`, { method: 'POST' })
const question = (text) => [{ id: 'q', role: 'user', parts: [{ type: 'text', text }] }]

async function collect(stream) {
  const found = []
  for await (const item of stream) found.push(item)
  return found
}

const clients = {
  async ai() {
    const { DefaultChatTransport, readUIMessageStream } = await import('ai')
    const transport = new DefaultChatTransport({ api: `${url}/ai` })
    const replaying = new DefaultChatTransport({ api: `${url}/replay` })
    const send = (chatId, text, abortSignal) =>
      transport.sendMessages({ chatId, trigger: 'submit-message', messages: question(text), abortSignal })
    const assemble = async (chunks) => {
      let message = null
      const stream = new ReadableStream({
        start(controller) {
          for (const chunk of chunks) controller.enqueue(chunk)
          controller.close()
        },
      })
      for await (message of readUIMessageStream({ stream }));
      return { ...message, id: '' } // each run has an id of its own
    }
    // Read a number of chunks, and cut the connection.
    const cut = async (chatId, count) => {
      const abort = new AbortController()
      const reader = (await send(chatId, 'wait', abort.signal)).getReader()
      for (let read = 0; read < count; read++) {
        if (read === 5) await post(`/go/${chatId}`)
        await reader.read()
      }
      abort.abort()
      await reader.cancel().catch(() => {})
    }
    const all = await collect(await send('whole', 'all'))
    const result = { chunks: all.map(({ type }) => type), whole: await assemble(all) }
    result.active = []
    for (let count = 1; count <= 5; count++) {
      await cut(`active-${count}`, count)
      const stream = await transport.reconnectToStream({ chatId: `active-${count}` })
      await post(`/go/active-${count}`)
      result.active.push(await assemble(await collect(stream)))
    }
    result.finished = []
    result.replayed = []
    for (let count = 6; count <= 8; count++) {
      const chatId = `finished-${count}`
      await cut(chatId, count)
      await post(`/stop/${chatId}`) // waits for its end, which has come or is near
      result.finished.push(await transport.reconnectToStream({ chatId }))
      result.replayed.push(await assemble(await collect(await replaying.reconnectToStream({ chatId }))))
    }
    const reader = (await send('stopped', 'wait')).getReader()
    await reader.read()
    result.cancelled = (await (await post('/stop/stopped')).json()).filter((name) => name === 'stopped').length
    const rest = []
    for (let read = await reader.read(); !read.done; read = await reader.read()) rest.push(read.value.type)
    result.stopped = rest.slice(-1)
    result.idle = await transport.reconnectToStream({ chatId: 'nobody' })
    result.failure = (await collect(await send('failing', 'fail'))).at(-1).errorText
    return result
  },

  async 'ag-ui'() {
    const { HttpAgent } = await import('@ag-ui/client')
    const ask = async (threadId, content, path = '/ag-ui', method = 'POST') => {
      const agent = new HttpAgent({
        url: `${url}${path}`,
        threadId,
        initialMessages: [{ id: 'q', role: 'user', content }],
        fetch: (input, init) => fetch(input, method === 'GET' ? { signal: init.signal } : init),
      })
      if (method === 'GET') {
        agent.requestInit = () => ({ method: 'GET' })
      }
      let failure = null
      await agent.runAgent({}, { onRunErrorEvent: ({ event }) => { failure = event.message } }).catch(() => {})
      const texts = agent.messages.filter(({ role }) => role === 'assistant').map((message) => message.content)
      return { texts, failure }
    }
    const whole = await ask('ag-1', 'all')
    const joined = await ask('ag-1', 'all', '/ag-ui/ag-1', 'GET')
    const failed = await ask('ag-2', 'fail')
    return { messages: whole.texts, joined: joined.texts, failure: failed.failure }
  },

  async 'eventsource-parser'() {
    const { EventSourceParserStream } = await import('eventsource-parser/stream')
    const answer = await post('/events?name=parser/1&question=all')
    const events = await collect(answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream()))
    return {
      data: events.map(({ data }) => data),
      types: events.map(({ event }) => event ?? 'message'),
      ids: events.map(({ id }) => id),
    }
  },

  async 'fetch-event-source'() {
    // A window is all that it needs of a browser.
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }
    globalThis.window = globalThis
    const { fetchEventSource } = await import('@microsoft/fetch-event-source')
    await collect((await post('/events?name=fetch/1&question=all')).body)
    const data = []
    let requests = 0
    let last = ''
    const read = (headers) =>
      fetchEventSource(`${url}/events?name=fetch/1`, {
        headers,
        openWhenHidden: true,
        fetch(input, init) {
          requests++
          return fetch(input, init)
        },
        onmessage(event) {
          if (event.id) last = event.id
          if (event.event === 'stream:end') throw new Error('end')
          if (!event.data) return
          data.push(event.data)
          throw new Error('cut')
        },
        onerror(error) {
          if (error.message === 'end') throw error
          return 1
        },
      })
    await read({}).catch(() => {})
    const after = await fetch(`${url}/events?name=fetch/1`, { headers: { 'last-event-id': last } })
    return { data, requests, after: after.status }
  },
}

process.stdout.write(JSON.stringify(await clients[client]()))
process.exit(0)
