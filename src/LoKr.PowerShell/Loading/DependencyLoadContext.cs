using System.Reflection;
using System.Runtime.Loader;

namespace LoKr.PowerShell.Loading;

/// <summary>
/// Holds the libraries that LoKr and TorchSharp need (Google.Protobuf, SharpZipLib, SkiaSharp, tokenizers …) apart from those of
/// other modules: they come from the module's <c>dependencies</c> folder and from nowhere else.
/// </summary>
internal sealed class DependencyLoadContext : AssemblyLoadContext
{
    private readonly Dictionary<string, (AssemblyName Name, string Path)> _shipped = new(StringComparer.OrdinalIgnoreCase);

    /// <summary>Lists what a folder ships; nothing is loaded yet.</summary>
    public DependencyLoadContext(string folder)
        : base("LoKr dependencies")
    {
        if (!Directory.Exists(folder))
        {
            return;
        }

        foreach (string path in Directory.EnumerateFiles(folder, "*.dll"))
        {
            AssemblyName name = AssemblyName.GetAssemblyName(path);
            _shipped[name.Name!] = (name, path);
        }
    }

    /// <summary>Simple names of the shipped assemblies.</summary>
    public IEnumerable<string> Names => _shipped.Keys;

    /// <summary>Loads a shipped assembly, or returns null when it is not ours or older than what is asked for.</summary>
    public Assembly? TryLoad(AssemblyName requested)
    {
        if (requested.Name is null || !_shipped.TryGetValue(requested.Name, out var shipped))
        {
            return null;
        }

        // A request for another strong name or a newer version is for somebody else's copy.
        return (requested.Version is null || requested.Version <= shipped.Name.Version)
            && SameKey(requested, shipped.Name)
                ? LoadFromAssemblyPath(shipped.Path)
                : null;
    }

    /// <inheritdoc/>
    protected override Assembly? Load(AssemblyName assemblyName) => TryLoad(assemblyName);

    private static bool SameKey(AssemblyName requested, AssemblyName shipped)
    {
        byte[] key = requested.GetPublicKeyToken() ?? [];
        return key.Length == 0 || key.AsSpan().SequenceEqual(shipped.GetPublicKeyToken());
    }
}
