/**
 * A machine of a test's network, run in a network namespace of its own. It answers everybody on TCP and UDP with the
 * address that it sees them at, knows every name, and tries on demand what it can reach itself. One line of JSON in, one
 * out: see `Machines.ts`. It ends with its standard input.
 *
 *   node peer.ts PORT...
 */
import { createSocket } from "node:dgram"
import { connect, createServer } from "node:net"
import { createInterface } from "node:readline"

const [, , ...ports] = process.argv

/** The address that every name has: "the internet" of `Machines.ts`. */
const known = [198, 51, 100, 10]

const dnsPort = 53
const waitMillis = 1500

/** IPv4 as itself where a socket of both families sees it. */
const plain = (address: string | undefined): string => (address ?? "").replace(/^::ffff:/, "")

/** What came by UDP, as `source text`. */
const heard: Array<string> = []

const dnsAnswer = (question: Buffer): Buffer => {
  const endOfName = question.indexOf(0, 12)
  const asked = question.subarray(12, endOfName + 5)
  const header = Buffer.from([question[0] ?? 0, question[1] ?? 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0])
  // Type A, one minute; the name is the question's.
  const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...known])
  const isForAddress = question.readUInt16BE(endOfName + 1) === 1
  header[7] = isForAddress ? 1 : 0
  return isForAddress ? Buffer.concat([header, asked, answer]) : Buffer.concat([header, asked])
}

for (const port of ports.map(Number)) {
  createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {})
    socket.write(plain(socket.remoteAddress))
    // Who says nothing keeps its connection.
    socket.on("data", () => socket.end())
    socket.on("end", () => socket.end())
  }).listen({ port, host: "::", backlog: 4096 })
}

/** Answers come from the address that was asked, so each has a socket of its own. */
const answerAt = (address: string): Promise<ReadonlyArray<void>> =>
  Promise.all(
    ports.map(Number).map((port) =>
      new Promise<void>((resolve) => {
        const datagrams = createSocket(address.includes(":") ? "udp6" : "udp4")
        datagrams.on("message", (text, { address, port: source }) => {
          heard.push(`${address} ${port === dnsPort ? "" : text.toString()}`)
          datagrams.send(port === dnsPort ? dnsAnswer(text) : address, source, address, () => {})
        })
        datagrams.bind(port, address, resolve)
      })
    )
  )

const tryTcp = (host: string, port: number): Promise<string> =>
  new Promise((resolve) => {
    let said = ""
    const socket = connect({ host, port })
    const done = (result: string) => {
      socket.destroy()
      resolve(result)
    }
    socket.setTimeout(waitMillis, () => done("TIMEDOUT"))
    socket.on("connect", () => socket.write("?"))
    socket.on("data", (text) => {
      said += text.toString()
    })
    socket.on("end", () => done(said))
    socket.on("error", (error) => done("code" in error ? String(error.code) : error.message))
  })

const tryUdp = (host: string, port: number): Promise<string> =>
  new Promise((resolve) => {
    const socket = createSocket(host.includes(":") ? "udp6" : "udp4")
    const done = (result: string) => {
      clearTimeout(timer)
      socket.close()
      resolve(result)
    }
    const timer = setTimeout(() => done("TIMEDOUT"), waitMillis)
    socket.on("message", (text) => done(text.toString()))
    socket.on("error", (error) => done("code" in error ? String(error.code) : error.message))
    socket.connect(port, host, () => socket.send("?"))
  })

for await (const line of createInterface({ input: process.stdin })) {
  const [what = "", host = "", port = ""] = line.split(" ")
  const answer = what === "heard"
    ? heard.splice(0)
    : what === "answer"
    ? await answerAt(host)
    : await (what === "udp" ? tryUdp(host, Number(port)) : tryTcp(host, Number(port)))
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
process.exit(0)
