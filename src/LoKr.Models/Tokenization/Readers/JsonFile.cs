using System.Text.Json;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>Reads JSON files whose root is an object.</summary>
internal static class JsonFile
{
    public static JsonComponent Read(string path)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path));
            return new JsonComponent(path, Path.GetFileName(path), document.RootElement.Clone());
        }
        catch (JsonException exception)
        {
            throw TokenizerError.Invalid(path, $"it is not JSON ({exception.Message})", exception);
        }
    }
}
