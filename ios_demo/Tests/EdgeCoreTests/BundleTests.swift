import XCTest

@testable import EdgeFormer

final class BundleTests: XCTestCase {
    private let names = ["tiny-text.zip", "tiny-image.zip", "tiny-speech.zip"]

    func testZipsAndFoldersHoldTheSame() throws {
        for name in names {
            let zip = try ModelBundle.open(Golden.url(name))
            try withTemporaryFolder { folder in
                try unpack(name, into: folder)
                let opened = try ModelBundle.open(folder)
                XCTAssertEqual(opened.manifest, zip.manifest)
                XCTAssertEqual(try ModelBundle.manifest(of: folder), zip.manifest)
                XCTAssertEqual(try ModelBundle.manifest(of: Golden.url(name)), zip.manifest)
                for file in zip.manifest.files.keys {
                    XCTAssertEqual(try opened.readBytes(file), try zip.readBytes(file))
                }
            }
        }
    }

    func testAZipsCopyGoesWithTheBundle() throws {
        var bundle: ModelBundle? = try ModelBundle.open(Golden.url(names[0]))
        let file = try XCTUnwrap(try bundle?.url("model.bin"))
        XCTAssertTrue(FileManager.default.fileExists(atPath: file.path))
        bundle = nil
        XCTAssertFalse(FileManager.default.fileExists(atPath: file.path))
    }

    func testCopiesOfEndedProcessesGo() throws {
        let manager = FileManager.default
        // No process has this number: Linux and Apple's systems give lower ones.
        let left = manager.temporaryDirectory.appendingPathComponent("edgeformer-\(Int32.max)-left")
        let used = manager.temporaryDirectory.appendingPathComponent(
            "edgeformer-\(ProcessInfo.processInfo.processIdentifier)-used")
        for folder in [left, used] { try manager.createDirectory(at: folder, withIntermediateDirectories: true) }
        defer { try? manager.removeItem(at: used) }
        _ = try ModelBundle.open(Golden.url(names[0]))
        XCTAssertFalse(manager.fileExists(atPath: left.path))
        XCTAssertTrue(manager.fileExists(atPath: used.path))
    }

    func testAChangedByteOfAnyFileIsRefused() throws {
        try withTemporaryFolder { folder in
            try unpack(names[0], into: folder)
            for file in try Folder.sizes(in: folder).keys {
                let url = folder.appendingPathComponent(file)
                let bytes = try Data(contentsOf: url)
                guard !bytes.isEmpty else { continue }
                var changed = bytes
                changed[bytes.count / 2] ^= 1
                try changed.write(to: url)
                XCTAssertEqual(errorName { _ = try ModelBundle.open(folder) }, "BundleError", file)
                try bytes.write(to: url)
            }
            _ = try ModelBundle.open(folder)
        }
    }

    func testNoChangeOfAZipGivesAnotherErrorOrACrash() throws {
        let bytes = try Golden.data(names[0])
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("changed.zip")
            for place in stride(from: 0, to: bytes.count, by: 7) {
                var changed = bytes
                changed[place] ^= 0x55
                try changed.write(to: url)
                // Dates in the zip's headers are free, and so are texts of a manifest that nobody signed.
                let found = errorName { _ = try ModelBundle.open(url) }
                XCTAssertTrue(found == nil || found == "BundleError", "byte \(place): \(found ?? "")")
            }
            for length in stride(from: 0, to: bytes.count, by: 97) {
                try bytes.prefix(length).write(to: url)
                XCTAssertEqual(errorName { _ = try ModelBundle.open(url) }, "BundleError", "\(length) bytes")
            }
        }
    }

    func testWhatFileManagersLeaveIsPassedOverByExactName() throws {
        try withTemporaryFolder { folder in
            try unpack(names[0], into: folder)
            for name in [".DS_Store", "Thumbs.db", "desktop.ini"] {
                try Data("x".utf8).write(to: folder.appendingPathComponent(name))
                try Data("x".utf8).write(to: folder.appendingPathComponent("vectors/\(name)"))
            }
            _ = try ModelBundle.open(folder)
            for name in ["thumbs.db", "._manifest.json"] {
                let url = folder.appendingPathComponent(name)
                try Data("x".utf8).write(to: url)
                XCTAssertEqual(errorName { _ = try ModelBundle.open(folder) }, "BundleError", name)
                try FileManager.default.removeItem(at: url)
            }
            let more = folder.appendingPathComponent("more")
            try FileManager.default.createDirectory(at: more, withIntermediateDirectories: false)
            try Data("x".utf8).write(to: more.appendingPathComponent(".DS_Store"))
            XCTAssertEqual(errorName { _ = try ModelBundle.open(folder) }, "BundleError")
        }
    }

    func testABundleThatItsConversionsGatesRefusedIsNeverOpened() throws {
        try withTemporaryFolder { folder in
            try unpack(names[0], into: folder)
            try Data("{}".utf8).write(to: folder.appendingPathComponent(Manifest.refusedFile))
            let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
            let url = folder.appendingPathComponent(Manifest.fileName)
            let text = try String(contentsOf: url, encoding: .utf8)
            let entry = "\"files\": {\"refused.json\": {\"sha256\": \"\(hash)\", \"size\": 2},"
            try Data(text.replacingOccurrences(of: "\"files\": {", with: entry).utf8).write(to: url)
            XCTAssertThrowsError(try ModelBundle.open(folder)) { error in
                XCTAssertTrue("\(error)".contains("gates of its conversion refused this bundle"), "\(error)")
            }
        }
    }

    func testAFileThatWasNeverWrittenIsNotHashed() throws {
        let whole = 64 << 20
        try withTemporaryFolder { folder in
            try unpack(names[0], into: folder)
            let manifest = folder.appendingPathComponent(Manifest.fileName)
            let text = String(decoding: try Data(contentsOf: manifest), as: UTF8.self)
            let larger = text.replacingOccurrences(of: "\"size\": 256", with: "\"size\": \(whole)")
            try Data(larger.utf8).write(to: manifest)
            let model = folder.appendingPathComponent("model.bin")
            for written in [0, whole / 6] {
                try Data(repeating: 1, count: written).write(to: model)
                let file = try FileHandle(forWritingTo: model)
                try file.truncate(atOffset: UInt64(whole))
                try file.close()
                if written == 0 {
                    XCTAssertThrowsError(try ModelBundle.open(folder)) { error in
                        XCTAssertTrue("\(error)".contains("were never written"), "\(error)")
                    }
                } else {  // it would be hashed
                    try FileSizes.refuseHoles(try Data(contentsOf: model, options: .alwaysMapped), "model.bin")
                }
            }
        }
    }

    func testFilesThatTheManifestDoesNotListAreRefused() throws {
        try withTemporaryFolder { folder in
            try unpack(names[0], into: folder)
            let extra = folder.appendingPathComponent("extra.txt")
            try Data("x".utf8).write(to: extra)
            XCTAssertEqual(errorName { _ = try ModelBundle.open(folder) }, "BundleError")
            try FileManager.default.removeItem(at: extra)
            let link = folder.appendingPathComponent("link")
            try FileManager.default.createSymbolicLink(at: link, withDestinationURL: Golden.url(names[0]))
            XCTAssertEqual(errorName { _ = try ModelBundle.open(folder) }, "BundleError")
            try FileManager.default.removeItem(at: link)
            let empty = folder.appendingPathComponent("empty")
            try FileManager.default.createDirectory(at: empty, withIntermediateDirectories: false)
            XCTAssertEqual(errorName { _ = try ModelBundle.open(folder) }, "BundleError")
            try FileManager.default.removeItem(at: empty)
            try FileManager.default.removeItem(at: folder.appendingPathComponent("model.bin"))
            XCTAssertEqual(errorName { _ = try ModelBundle.open(folder) }, "BundleError")
        }
    }

    func testARequiredSignatureThatIsNotThereIsRefused() throws {
        let required = try Required(keys: [Data(repeating: 2, count: 32)])
        XCTAssertEqual(errorName { _ = try ModelBundle.open(Golden.url(names[0]), required: required) }, "BundleError")
    }

    func testAnotherBundleThanTheRequiredOneIsRefused() throws {
        let wanted = try Required(name: "tiny-text")
        XCTAssertEqual(try ModelBundle.open(Golden.url(names[0]), required: wanted).manifest.name, "tiny-text")
        for other in [try Required(name: "tiny-image"), try Required(name: "tiny-text", leastVersion: 1)] {
            XCTAssertEqual(errorName { _ = try ModelBundle.open(Golden.url(names[0]), required: other) }, "BundleError")
        }
    }

    func testZipsInWhichSomethingHides() throws {
        let golden = try Golden.json("zips.json")
        let base = try Golden.data(try XCTUnwrap(golden["base"].text))
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("case.zip")
            for item in try Golden.items(golden["cases"]) {
                let name = item["name"].text ?? ""
                try spliced(base, item["splices"].items).write(to: url)
                XCTAssertEqual(errorName { _ = try ModelBundle.open(url) }, item["error"].text, name)
                guard item["error"].isNull else { continue }
                let isCanonical = errorName { try Archive(url).checkCanonical() } == nil
                XCTAssertEqual(isCanonical, item["canonical"].flag, name)
            }
        }
    }

    private func spliced(_ base: Data, _ splices: [JsonValue]) -> Data {
        var changed = Data()
        var position = 0
        for splice in splices {
            changed += base[position..<splice[0].int] + bytes(of: splice[2].text ?? "")
            position = splice[1].int
        }
        return changed + base[position...]
    }

    func testASignatureOfAnotherSizeIsRefused() throws {
        try withTemporaryFolder { folder in
            try unpack(names[0], into: folder)
            let signature = folder.appendingPathComponent(Signature.fileName)
            try Data(repeating: 0, count: 64).write(to: signature)
            XCTAssertTrue(try ModelBundle.open(folder).isSigned)
            try Data(repeating: 0, count: 63).write(to: signature)
            XCTAssertEqual(errorName { _ = try ModelBundle.open(folder) }, "BundleError")
        }
    }

    func testNoBundle() {
        XCTAssertEqual(errorName { _ = try ModelBundle.open(Golden.url("none")) }, "BundleError")
        XCTAssertEqual(errorName { _ = try ModelBundle.open(Golden.url("README.md")) }, "BundleError")
    }

    func testOldCopiesGo() throws {
        let manager = FileManager.default
        let folder = manager.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        addTeardownBlock { try manager.removeItem(at: folder) }
        let copies = (0..<5).map { folder.appendingPathComponent("\($0)") }
        for (age, copy) in copies.enumerated() {
            try manager.createDirectory(at: copy, withIntermediateDirectories: true)
            let date = Date(timeIntervalSince1970: Double(1000 - age))
            try manager.setAttributes([.modificationDate: date], ofItemAtPath: copy.path)
        }
        OldCopies.remove(in: folder, used: [copies[4]], keeping: 3)
        XCTAssertEqual(try manager.contentsOfDirectory(atPath: folder.path).sorted(), ["0", "1", "4"])
        OldCopies.remove(in: folder, used: [copies[0], copies[4]], keeping: 1)
        XCTAssertEqual(try manager.contentsOfDirectory(atPath: folder.path).sorted(), ["0", "4"])
    }
}
