/** Prints what failed, and one closing line. */
import type { TestEvent } from "node:test/reporters"

export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const began = performance.now()
  let passed = 0
  let failed = 0
  for await (const event of events) {
    if (event.type === "test:stdout" || event.type === "test:stderr") yield event.data.message
    if (event.type === "test:pass") passed += 1
    if (event.type === "test:fail") {
      failed += 1
      const { cause } = event.data.details.error
      yield `FAILED ${event.data.name}\n${cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)}\n`
    }
  }
  yield `Node.js adapter: ${passed} passed, ${failed} failed in ${((performance.now() - began) / 1000).toFixed(1)} s\n`
}
