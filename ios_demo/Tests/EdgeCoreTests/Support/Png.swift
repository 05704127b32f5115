import Foundation

@testable import EdgeFormer

/// Reads PNG files of 8-bit RGB (RFC 2083), so that image bundles can be tested where the system has no decoder.
func decodePng(_ data: Data) throws -> Pixels {
    let bytes = [UInt8](data)
    func number(_ offset: Int) -> Int { bytes[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) } }
    var (position, width, height) = (8, 0, 0)
    var stream: [UInt8] = []
    while position + 8 <= bytes.count {
        let (size, content) = (number(position), position + 8)
        switch String(decoding: bytes[position + 4..<content], as: UTF8.self) {
        case "IHDR":
            (width, height) = (number(content), number(content + 4))
            guard bytes[content + 8...content + 12] == [8, 2, 0, 0, 0] else { throw InputError("expected 8-bit RGB") }
        case "IDAT": stream += bytes[content..<content + size]
        default: break
        }
        position = content + size + 4
    }
    var inflater = Inflater(Array(stream.dropFirst(2)))
    return try Pixels(width: width, height: height, rgb: unfilter(try inflater.inflate(), width: width, height: height))
}

/// Undo the filter of each row (section 6).
private func unfilter(_ filtered: [UInt8], width: Int, height: Int) -> [UInt8] {
    let stride = 3 * width
    var rgb = [UInt8](repeating: 0, count: stride * height)
    for y in 0..<height {
        let kind = filtered[y * (stride + 1)]
        for x in 0..<stride {
            let left = x >= 3 ? Int(rgb[y * stride + x - 3]) : 0
            let up = y > 0 ? Int(rgb[(y - 1) * stride + x]) : 0
            let corner = x >= 3 && y > 0 ? Int(rgb[(y - 1) * stride + x - 3]) : 0
            let estimate = left + up - corner
            let distances = (abs(estimate - left), abs(estimate - up), abs(estimate - corner))
            let paeth =
                distances.0 <= distances.1 && distances.0 <= distances.2
                ? left : distances.1 <= distances.2 ? up : corner
            let predicted = [0, left, up, (left + up) / 2, paeth][Int(kind)]
            rgb[y * stride + x] = filtered[y * (stride + 1) + 1 + x] &+ UInt8(predicted)
        }
    }
    return rgb
}

/// Undoes deflate (RFC 1951).
private struct Inflater {
    private let bytes: [UInt8]
    private var bit = 0
    private var out: [UInt8] = []

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func inflate() throws -> [UInt8] {
        var isLast = false
        while !isLast {
            isLast = take(1) == 1
            switch take(2) {
            case 0: stored()
            case 1:
                let lengths = (0..<288).map { $0 < 144 ? 8 : $0 < 256 ? 9 : $0 < 280 ? 7 : 8 }
                block(Code(lengths), Code([Int](repeating: 5, count: 30)))
            case 2:
                let (literals, distances) = codes()
                block(literals, distances)
            default: throw InputError("corrupted deflate stream")
            }
        }
        return out
    }

    /// A canonical Huffman code by length and value.
    private struct Code {
        private var symbols: [Int: Int] = [:]

        init(_ lengths: [Int]) {
            var next = 0
            for length in 1...15 {
                next <<= 1
                for (symbol, found) in lengths.enumerated() where found == length {
                    symbols[length << 16 | next] = symbol
                    next += 1
                }
            }
        }

        func symbol(length: Int, value: Int) -> Int? { symbols[length << 16 | value] }
    }

    private mutating func take(_ count: Int) -> Int {
        var value = 0
        for place in 0..<count {
            value |= Int(bytes[bit / 8] >> (bit % 8) & 1) << place
            bit += 1
        }
        return value
    }

    private mutating func symbol(_ code: Code) -> Int {
        var value = 0
        for length in 1...15 {
            value = value << 1 | take(1)
            if let found = code.symbol(length: length, value: value) { return found }
        }
        return 256
    }

    private mutating func stored() {
        bit = (bit + 7) / 8 * 8
        let count = take(16)
        _ = take(16)
        for _ in 0..<count { out.append(UInt8(take(8))) }
    }

    private mutating func codes() -> (Code, Code) {
        let (literals, distances, count) = (take(5) + 257, take(5) + 1, take(4) + 4)
        var orders = [Int](repeating: 0, count: 19)
        for place in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15].prefix(count) {
            orders[place] = take(3)
        }
        let code = Code(orders)
        var lengths: [Int] = []
        while lengths.count < literals + distances {
            switch symbol(code) {
            case 16: lengths += [Int](repeating: lengths[lengths.count - 1], count: take(2) + 3)
            case 17: lengths += [Int](repeating: 0, count: take(3) + 3)
            case 18: lengths += [Int](repeating: 0, count: take(7) + 11)
            case let length: lengths.append(length)
            }
        }
        return (Code(Array(lengths[..<literals])), Code(Array(lengths[literals...])))
    }

    private mutating func block(_ literals: Code, _ distances: Code) {
        while true {
            let found = symbol(literals)
            if found < 256 {
                out.append(UInt8(found))
            } else if found == 256 {
                return
            } else {
                let length = extended(found - 257, step: 4, first: 3)
                let distance = extended(symbol(distances), step: 2, first: 1)
                for _ in 0..<length { out.append(out[out.count - distance]) }
            }
        }
    }

    /// Lengths and distances: `step` values for each number of extra bits, twice as many with none.
    private mutating func extended(_ symbol: Int, step: Int, first: Int) -> Int {
        if step == 4, symbol == 28 { return 258 }
        if symbol < step { return first + symbol }
        let bits = symbol / step - 1
        return first + (step + symbol % step) << bits + take(bits)
    }
}
