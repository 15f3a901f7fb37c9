// Starts an order from Node.js and waits for it: npm start
import { connect } from "rhythm-flow"

const client = await connect()
const [orderId = "o-1", country = "NZ"] = process.argv.slice(2)
const execution = await client.start("sendOrder", { orderId, country, items: ["book", "pen"] })
console.log(JSON.stringify(await execution.result({ timeout: "30s" })))
await client.close()
