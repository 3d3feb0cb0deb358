// Listen to a stream with one of npm's clients and print each event as a line of JSON.
// Usage: node listen.mjs CLIENT URL

const [client, url] = process.argv.slice(2)
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)

if (client === 'eventsource') {
  const { EventSource } = await import('eventsource')
  const source = new EventSource(url)
  source.addEventListener('open', () => print({ open: true }))
  source.addEventListener('tick', ({ lastEventId, data }) => print({ id: lastEventId, data }))
  source.addEventListener('stream:gap', ({ data }) => print({ gap: data }))
} else {
  const { createEventSource } = await import('eventsource-client')
  createEventSource({
    url,
    onConnect: () => print({ open: true }),
    onMessage: ({ id, event, data }) => print(event === 'tick' ? { id, data } : { gap: data }),
  })
}
