/** Logging: lines like the Python worker's, as text or JSON, to standard error or wherever the application wants them. */

export const LEVELS = ["debug", "info", "warning", "error"] as const
export type Level = (typeof LEVELS)[number]

type Fields = Readonly<Record<string, unknown>>

/** Takes one line. */
export type Sink = (level: Level, message: string, fields: Fields) => void

/** A logger; `fields` are written as key=value, before the message. */
export class Logger {
  constructor(
    private readonly sink: Sink,
    private readonly fields: Fields = {},
  ) {}

  /** The same with more fields. */
  with(fields: Fields): Logger {
    return new Logger(this.sink, { ...this.fields, ...fields })
  }

  debug(message: string, fields: Fields = {}): void {
    this.sink("debug", message, { ...this.fields, ...fields })
  }

  info(message: string, fields: Fields = {}): void {
    this.sink("info", message, { ...this.fields, ...fields })
  }

  warning(message: string, fields: Fields = {}): void {
    this.sink("warning", message, { ...this.fields, ...fields })
  }

  error(message: string, fields: Fields = {}): void {
    this.sink("error", message, { ...this.fields, ...fields })
  }
}

/** Writes lines of at least a level. */
export function streamSink(
  level: Level,
  format: "text" | "json",
  write: (line: string) => void = (line) => process.stderr.write(line),
): Sink {
  const from = LEVELS.indexOf(level)
  return (at, message, fields) => {
    if (LEVELS.indexOf(at) < from) return
    const time = new Date().toISOString()
    if (format === "json") {
      write(`${JSON.stringify({ time, level: at, logger: "rhythm", message, ...fields })}\n`)
    } else {
      const words = Object.entries(fields).map(([key, value]) => `${key}=${plain(value)}`)
      write(`${time} ${at.toUpperCase().padEnd(7)} rhythm ${[...words, plain(message)].join(" ")}\n`)
    }
  }
}

/** One line, without control characters: what is logged may come from anybody. */
function plain(value: unknown): string {
   
  return String(value).replace(/[\x00-\x1f\x7f-\x9f]/g, (character) => JSON.stringify(character).slice(1, -1))
}
