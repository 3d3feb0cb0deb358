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
    // Read a number of chunks, and cut the connection. The run waits at the end of them, or after the first five.
    const cut = async (chatId, count, text = 'wait') => {
      const abort = new AbortController()
      const reader = (await send(chatId, text, abort.signal)).getReader()
      for (let read = 0; read < count; read++) {
        if (read === 5 && text === 'wait') await post(`/go/${chatId}`)
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
    const withTool = await collect(await send('tool', 'tool'))
    result.tool = { chunks: withTool, whole: await assemble(withTool), joined: [] }
    // The last two chunks, "finish" and the end, are sent when the run no longer waits.
    for (let count = 1; count <= withTool.length; count++) {
      const chatId = `tool-${count}`
      await cut(chatId, count, 'tool wait')
      const stream = await transport.reconnectToStream({ chatId })
      await post(`/go/${chatId}`)
      result.tool.joined.push(await assemble(await collect(stream)))
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
    const read = async (threadId, content, path) => {
      const agent = new HttpAgent({
        url: `${url}${path}`,
        threadId,
        initialMessages: [{ id: 'q', role: 'user', content }],
        fetch: (input, init) => fetch(input, path === '/ag-ui' ? init : { signal: init.signal }),
      })
      const types = []
      let failure = null
      await agent
        .runAgent(
          {},
          {
            onEvent: ({ event }) => void types.push(event.type),
            onRunErrorEvent: ({ event }) => void (failure = event.message),
            onRunFailed: ({ error }) => void (failure ??= `refused: ${error.message}`),
          },
        )
        .catch(() => {})
      // Each run has ids of its own.
      const messages = agent.messages.filter(({ id }) => id !== 'q').map((message) => ({ ...message, id: '' }))
      return { types, messages, failure, state: agent.state }
    }
    const ask = (threadId, content) => read(threadId, content, '/ag-ui')
    const join = (threadId) => read(threadId, '', `/ag-ui/${threadId}`)
    // Read a number of events, and cut the connection.
    const cut = async (threadId, content, count) => {
      const abort = new AbortController()
      const body = JSON.stringify({ threadId, messages: [{ content }] })
      const answer = await fetch(`${url}/ag-ui`, { method: 'POST', body, signal: abort.signal })
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
      let text = ''
      while (text.split('\n\n').length <= count) text += (await reader.read()).value
      abort.abort()
      await reader.cancel().catch(() => {})
    }
    const result = { whole: await ask('ag-1', 'all'), finished: await join('ag-1'), tool: await ask('ag-2', 'tool') }
    result.failed = await ask('ag-3', 'fail')
    result.joined = []
    for (let count = 1; count < result.tool.types.length; count++) {
      const threadId = `ag-tool-${count}`
      await cut(threadId, 'tool wait', count)
      const joined = join(threadId)
      await post(`/go/${threadId}`)
      result.joined.push(await joined)
    }
    return result
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
