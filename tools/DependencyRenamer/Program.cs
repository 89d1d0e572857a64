using Mono.Cecil;
using Mono.Cecil.Cil;

// usage: DependencyRenamer LIST OUTPUT
// LIST names one assembly a line: "+ path" for a private dependency, "  path" for an assembly that refers to some. Each is written to OUTPUT with
// the dependencies' names, its own and those it refers to, extended by a suffix. Identities are all that changes.
const string Suffix = ".LoKr";

string output = args[1];
string[] lines = File.ReadAllLines(args[0]);
HashSet<string> dependencies = [.. lines.Where(line => line.StartsWith('+')).Select(line => Path.GetFileNameWithoutExtension(line[2..]))];
string[] paths = [.. lines.Select(line => line[2..])];
Directory.CreateDirectory(output);

// Default values of parameters are written by the types of enumerations, which lie in other assemblies.
using DefaultAssemblyResolver resolver = new();
foreach (string folder in paths.Append(typeof(object).Assembly.Location).Select(path => Path.GetDirectoryName(path)!).Distinct())
{
    resolver.AddSearchDirectory(folder);
}

foreach (string path in paths)
{
    bool hasSymbols = File.Exists(Path.ChangeExtension(path, ".pdb"));
    using AssemblyDefinition assembly = AssemblyDefinition.ReadAssembly(path, new ReaderParameters { ReadSymbols = hasSymbols, AssemblyResolver = resolver });
    string file = Path.GetFileNameWithoutExtension(path);
    if (dependencies.Contains(assembly.Name.Name))
    {
        assembly.Name.Name += Suffix;
        file += Suffix;
        assembly.MainModule.Name = $"{file}.dll";
    }

    foreach (AssemblyNameReference reference in assembly.MainModule.AssemblyReferences.Where(reference => dependencies.Contains(reference.Name)))
    {
        reference.Name += Suffix;
    }

    // The bytes differ from those that were signed. .NET does not look at the signature, but the flag would claim that there is one.
    assembly.MainModule.Attributes &= ~ModuleAttributes.StrongNameSigned;
    assembly.Write(
        Path.Combine(output, $"{file}.dll"),
        new WriterParameters { WriteSymbols = hasSymbols, SymbolWriterProvider = hasSymbols ? new PortablePdbWriterProvider() : null });
}
