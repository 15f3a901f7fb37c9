/**
 * Schemas of inputs: Standard Schemas (https://standardschema.dev), which validate themselves and may describe
 * themselves as JSON Schema, and plain JSON Schemas, which the package ajv validates.
 */
import { ConfigurationError, TaskInputInvalid } from "./errors.js"

const PROBLEMS_SHOWN_MAX = 8
const DIALECT = "draft-2020-12"

/** What this package needs of a Standard Schema, version 1. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>
    readonly types?: { readonly input: Input; readonly output: Output } | undefined
    /** of Standard JSON Schema, where the library has it */
    readonly jsonSchema?: { readonly input: (options: { readonly target: string }) => Record<string, unknown> } | undefined
  }
}

type StandardResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | {
      readonly issues: readonly {
        readonly message: string
        readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
      }[]
    }

/** A JSON Schema of draft 2020-12; `true` allows everything. */
export type JsonSchema = Readonly<Record<string, unknown>> & { readonly "~standard"?: never }

type Types<S> = S extends { readonly "~standard": { readonly types?: infer T } } ? NonNullable<T> : never
/** Type of the inputs as a caller gives them. */
export type InputsOfSchema<S> = Types<S> extends { readonly input: infer Input } ? Input : never
/** Type of the inputs as the task gets them. */
export type OutputOfSchema<S> = Types<S> extends { readonly output: infer Output } ? Output : never

/** Gives the inputs as the task gets them. Throws TaskInputInvalid. */
export type Validate = (inputs: unknown) => unknown

function isStandard(schema: StandardSchema | JsonSchema): schema is StandardSchema {
  return (schema as Partial<StandardSchema>)["~standard"] !== undefined
}

/** What validates the inputs of a task, and what describes them. Throws ConfigurationError. */
export async function prepareSchema(
  name: string,
  schema: StandardSchema | JsonSchema | undefined,
  described: JsonSchema | undefined,
): Promise<{ validate: Validate | undefined; jsonSchema: unknown }> {
  if (schema === undefined) return { validate: undefined, jsonSchema: described ?? { type: "object" } }
  if (isStandard(schema)) {
    return { validate: standard(name, schema), jsonSchema: described ?? describe(schema) }
  }
  return { validate: await compiled(name, schema), jsonSchema: described ?? schema }
}

function describe(schema: StandardSchema): unknown {
  try {
    return schema["~standard"].jsonSchema?.input({ target: DIALECT }) ?? { type: "object" }
  } catch {
    return { type: "object" } // it has parts that JSON Schema has no words for
  }
}

function standard(name: string, schema: StandardSchema): Validate {
  const finish = (result: StandardResult<unknown>): unknown => {
    if (result.issues === undefined) return result.value
    const problems = result.issues.map(({ message, path }) => {
      const at = (path ?? []).map((part) => (typeof part === "object" ? part.key : part)).map(String).join(".")
      return at ? `${at}: ${message}` : message
    })
    throw refusal(name, problems)
  }
  return (inputs) => {
    const result = schema["~standard"].validate(inputs)
    return result instanceof Promise ? result.then(finish) : finish(result)
  }
}

async function compiled(name: string, schema: JsonSchema): Promise<Validate> {
  let Ajv
  try {
    ;({ Ajv2020: Ajv } = await import("ajv/dist/2020.js"))
  } catch {
    throw new ConfigurationError(`task ${JSON.stringify(name)} has a JSON Schema, which needs the package ajv: npm install ajv`)
  }
  const ajv = new Ajv({ allErrors: true, strict: false, validateFormats: false })
  let check: ReturnType<typeof ajv.compile>
  try {
    check = ajv.compile(schema)
  } catch (error) {
    throw new ConfigurationError(`task ${JSON.stringify(name)}: its schema cannot be used: ${(error as Error).message}`)
  }
  return (inputs) => {
    if (check(inputs)) return inputs
    throw refusal(name, (check.errors ?? []).map((e) => `${e.instancePath.slice(1).replaceAll("/", ".") || "inputs"} ${e.message ?? ""}`))
  }
}

function refusal(name: string, problems: string[]): TaskInputInvalid {
  const more = problems.length > PROBLEMS_SHOWN_MAX ? `; and ${problems.length - PROBLEMS_SHOWN_MAX} more` : ""
  return new TaskInputInvalid(`task ${JSON.stringify(name)}: ${problems.slice(0, PROBLEMS_SHOWN_MAX).join("; ")}${more}`)
}
