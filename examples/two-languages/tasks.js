// The part of the team that writes JavaScript.
import { task, TaskNotRetryable } from "rhythm-flow"

export const printLabel = task(
  "printLabel",
  {
    retries: 3,
    timeout: "10s",
    jsonSchema: {
      type: "object",
      properties: { orderId: { type: "string" }, country: { type: "string", minLength: 2 } },
      required: ["orderId", "country"],
      additionalProperties: false,
    },
  },
  async ({ orderId, country }, ctx) => {
    if (country === "AQ") throw new TaskNotRetryable("nobody delivers there")
    ctx.logger.info("printing")
    return { label: `${country}-${ctx.idempotencyKey.slice(0, 8)}`, orderId }
  },
)
