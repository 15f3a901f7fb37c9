/** Time that never goes back, the same in all threads of this process; ms. */
export function monotonic(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/** Resolves after so long. */
export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}

/** Resolves when what is to be sent has been written, and what has come was read. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** Something to wait for: `set` wakes whoever waits, and a wait that begins later. */
export class Wake {
  isSet = false
  #resolve: (() => void) | undefined

  set(): void {
    this.isSet = true
    this.#resolve?.()
  }

  clear(): void {
    this.isSet = false
  }

  /** Waits until set, at most so long. */
  wait(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.isSet) {
        resolve()
        return
      }
      const timer = setTimeout(resolve, Math.max(0, milliseconds))
      this.#resolve = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

/** A promise that is resolved from outside. */
export class Signal {
  isSet = false
  readonly promise: Promise<void>
  #resolve!: () => void

  constructor() {
    this.promise = new Promise((resolve) => (this.#resolve = resolve))
  }

  set(): void {
    this.isSet = true
    this.#resolve()
  }
}
