using LoKr.Core.Errors;

namespace LoKr.Core.Safetensors;

/// <summary>Recognizes pickle files by name or content; loading one can run any code, so they are refused with advice.</summary>
internal static class PickleGuard
{
    private static readonly string[] s_extensions = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"];

    /// <summary>Refuses a file by its extension.</summary>
    public static void ThrowIfPickleName(string path)
    {
        if (s_extensions.Contains(Path.GetExtension(path), StringComparer.OrdinalIgnoreCase))
        {
            throw Refused(path);
        }
    }

    /// <summary>Refuses a file by its first bytes: a zip archive (PyTorch 1.6 and later) or a bare pickle.</summary>
    public static void ThrowIfPickle(string path, ReadOnlySpan<byte> start)
    {
        bool zip = start.StartsWith("PK\u0003\u0004"u8);
        bool pickle = start.Length > 2 && start[0] == 0x80 && start[1] is >= 2 and <= 5;
        if (zip || pickle)
        {
            throw Refused(path);
        }
    }

    /// <summary>Refuses a folder that has its weights as pickles only.</summary>
    public static void ThrowIfOnlyPickles(string folder, params ReadOnlySpan<string> baseNames)
    {
        foreach (string baseName in baseNames)
        {
            foreach (string name in (string[])[$"{baseName}.bin", $"{baseName}.bin.index.json", $"{baseName}.pt", $"{baseName}.pth", $"{baseName}.ckpt"])
            {
                string path = Path.Combine(folder, name);
                if (File.Exists(path))
                {
                    throw Refused(path);
                }
            }
        }
    }

    private static LoKrException Refused(string path) => new(
        ErrorIds.PickleRefused,
        LoKrErrorKind.NotSupported,
        $"'{path}' is a pickle file; loading one can run any code it carries, so it is not read.",
        "Download the safetensors version of the weights, or convert them where you trust them: in Python, load the model and call "
        + "save_pretrained(folder, safe_serialization=True).")
    {
        Target = path,
    };
}
