/** Tasks and clients in Node.js for Rhythm. */
export { Client, connect, Execution } from "./client.js"
export type {
  ExecutionInfo, ListOptions, LogLine, LogOptions, SignalOptions, StartCallOptions, Status, Workflows,
} from "./client.js"
export type { ConnectOptions, WorkerOptions } from "./config.js"
export type { Duration } from "./durations.js"
export * from "./errors.js"
export { newId } from "./ids.js"
export { Logger, streamSink } from "./logging.js"
export type { Level, Sink } from "./logging.js"
export type { Queryable } from "./protocol.js"
export type { Retry } from "./retry.js"
export type { JsonSchema, StandardSchema } from "./schema.js"
export type { Start, StartOptions } from "./starts.js"
export { task, TaskContext } from "./task.js"
export type { Handler, Task, TaskOptions } from "./task.js"
export { Worker } from "./worker/worker.js"
