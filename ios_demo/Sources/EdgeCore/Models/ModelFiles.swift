import Foundation

/// Looks at model files before an engine opens them, as BUNDLE.md says in "Model files".
public enum ModelFiles {
    private static let wayOn = "convert the bundle again, or get it again from its publisher"

    /// Refuse a bundle whose model files would harm whoever opens them.
    ///
    /// - Parameter bundle: an open bundle for Core ML or ExecuTorch.
    /// - Returns: for the inputs that index a table, how many rows it has: whoever runs the model holds the numbers to it.
    /// - Throws: `BundleError`: names the file, the rule that it breaks, and where.
    public static func check(_ bundle: ModelBundle) throws -> TableRows {
        let manifest = bundle.manifest
        var contents = Contents()
        for (file, programs) in Dictionary(grouping: manifest.programs, by: \.file).sorted(by: { $0.key < $1.key }) {
            let prefix = file + "/"
            let inside = manifest.files.keys.filter { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
            let found = try check(manifest.target, file, Set(inside), programs) { try bundle.readBytes($0) }
            contents.operators.merge(found.operators, uniquingKeysWith: +)
            contents.rows.merge(found.rows, uniquingKeysWith: { $1 })
        }
        try compare(manifest.operators, contents.operators)
        for program in manifest.programs { try compare(manifest, program, contents.rows[program.name] ?? [:]) }
        return contents.rows
    }

    /// Refuse a program whose inputs may number rows that its tables have not.
    private static func compare(_ manifest: Manifest, _ program: ProgramSpec, _ rows: [String: Int]) throws {
        for (name, count) in rows {
            // A table of one row is that of a model without token types: a run that asks for another row is refused.
            guard count > 1, let largest = manifest.largestNumber(program, name), largest >= count,
                largest < Int(Int32.max)
            else { continue }
            throw BundleError(
                "\(program.file): \(program.name): the input \(shown(name)) may be \(largest), "
                    + "the model's table has \(count) rows: \(wayOn)")
        }
    }

    /// What is in one file or package; `inside`: the names in a package's folder.
    static func check(
        _ target: Target, _ file: String, _ inside: Set<String>, _ programs: [ProgramSpec],
        read: (String) throws -> Data
    ) throws -> Contents {
        do {
            switch target {
            case .executorch: return try PteFile.check(try read(file), programs)
            case .coreml: return try MilPackage.check(inside, programs) { try read("\(file)/\($0)") }
            default: throw Broken("a model for \(target.rawValue), which nothing opens here")
            }
        } catch let error as Broken {
            throw BundleError("\(file): \(error.message): \(wayOn)")
        }
    }

    /// Refuse other operators, or another number of them, than the manifest states.
    static func compare(_ stated: [String: Int], _ found: [String: Int]) throws {
        for name in Set(stated.keys).union(found.keys).sorted() where stated[name] != found[name] {
            throw BundleError(
                "the model has the operator \(shown(name)) \(found[name] ?? 0) times, the manifest states \(stated[name] ?? 0): \(wayOn)"
            )
        }
    }
}
