import { assert, describe, it } from "@effect/vitest"
import * as Hpack from "../src/internal/hpack.ts"

const decode = (hex: string, table = new Hpack.Table(0)): ReadonlyArray<readonly [string, string]> => [
  ...Hpack.decode(Buffer.from(hex.replaceAll(" ", ""), "hex"), table)
]

/** RFC 7541, appendix C: the examples that need no dynamic table. */
const examples = {
  "C.2.1 spelled out, to be indexed": [
    "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
    [["custom-key", "custom-header"]]
  ],
  "C.2.2 the name indexed": ["040c 2f73 616d 706c 652f 7061 7468", [[":path", "/sample/path"]]],
  "C.2.3 never to be indexed": ["1008 7061 7373 776f 7264 0673 6563 7265 74", [["password", "secret"]]],
  "C.2.4 indexed": ["82", [[":method", "GET"]]],
  "C.4.1 a request in Huffman's code": [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    [[":method", "GET"], [":scheme", "http"], [":path", "/"], [":authority", "www.example.com"]]
  ],
  "C.6.1 an answer in Huffman's code": [
    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    [
      [":status", "302"],
      ["cache-control", "private"],
      ["date", "Mon, 21 Oct 2013 20:13:21 GMT"],
      ["location", "https://www.example.com"]
    ]
  ],
  "a table that is told to have no room": ["20 88", [[":status", "200"]]]
} as const

const malformed = {
  "an entry that there is not": "ff00",
  "an entry 0": "80",
  "an entry of the dynamic table": "be",
  "a text that is longer than the block": "000a 61",
  "a number without an end": "7f 80",
  "a number that is too large": "7f ffff ffff ffff 01",
  "a table with room": "3f e1 1f",
  "padding that is none": "0001 61 81 00",
  "the end of a text within it": "0001 61 84 ffff ffff"
} as const

/** RFC 7541, appendix C: blocks of one connection one after the other. */
const conversations = {
  "C.3 requests": [4096, [
    ["8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":authority", "www.example.com"]
    ]],
    ["8286 84be 5808 6e6f 2d63 6163 6865", [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":authority", "www.example.com"],
      ["cache-control", "no-cache"]
    ]],
    ["8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", [
      [":method", "GET"],
      [":scheme", "https"],
      [":path", "/index.html"],
      [":authority", "www.example.com"],
      ["custom-key", "custom-value"]
    ]]
  ]],
  "C.6 answers, of which the first is forgotten": [256, [
    [
      "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
      [
        [":status", "302"],
        ["cache-control", "private"],
        ["date", "Mon, 21 Oct 2013 20:13:21 GMT"],
        ["location", "https://www.example.com"]
      ]
    ],
    ["4883 640e ffc1 c0bf", [
      [":status", "307"],
      ["cache-control", "private"],
      ["date", "Mon, 21 Oct 2013 20:13:21 GMT"],
      ["location", "https://www.example.com"]
    ]],
    [
      "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
      [
        [":status", "200"],
        ["cache-control", "private"],
        ["date", "Mon, 21 Oct 2013 20:13:22 GMT"],
        ["location", "https://www.example.com"],
        ["content-encoding", "gzip"],
        ["set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"]
      ]
    ]
  ]]
} as const

describe("header blocks", () => {
  for (const [title, [bytes, blocks]] of Object.entries(conversations)) {
    it(title, () => {
      const table = new Hpack.Table(bytes)
      for (const [hex, headers] of blocks) {
        assert.deepStrictEqual(decode(hex, table), headers.map(([name, value]) => [name, value]))
      }
    })
  }

  it("forget what does not fit any more", () => {
    const table = new Hpack.Table(4096)
    decode("400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", table)
    assert.deepStrictEqual(decode("be", table), [["custom-key", "custom-value"]])
    assert.throws(() => decode("20 be", table), Hpack.MalformedBlock)
  })

  it("may not stand for more than they are worth", () => {
    const table = new Hpack.Table(4096)
    Hpack.decode(Buffer.concat([Buffer.from("4001617f9901", "hex"), Buffer.alloc(280, "v")]), table)
    assert.throws(() => Hpack.decode(Buffer.alloc(10_000, 0xbe), table), /headers of more than/)
  })

  for (const [title, [hex, headers]] of Object.entries(examples)) {
    it(title, () => {
      assert.deepStrictEqual(decode(hex), headers.map(([name, value]) => [name, value]))
    })
  }

  for (const [title, hex] of Object.entries(malformed)) {
    it(`refuses ${title}`, () => {
      assert.throws(() => decode(hex), Hpack.MalformedBlock)
    })
  }

  it("are read as they were written", () => {
    const headers = {
      ":method": "POST",
      ":scheme": "https",
      ":path": "/a.B/C",
      authorization: "Bearer secret",
      "grpc-timeout": "1m",
      empty: "",
      "long-bin": "x".repeat(60_000)
    }
    assert.deepStrictEqual(Object.fromEntries(Hpack.decode(Hpack.encode(headers), new Hpack.Table(0))), headers)
  })

  it("mark secrets, and write names in lower case", () => {
    assert.strictEqual(Hpack.encode({ Authorization: "x" }).toString("hex"), "1f080178")
  })
})
