using LoKr.Core.Conversion;
using TorchSharp;

namespace LoKr.Core.Formats;

/// <summary>Writes a LoRA adapter as PEFT saves one, so that <c>PeftModel.from_pretrained</c>, transformers and diffusers load it.</summary>
public static class PeftLoraFolder
{
    private static readonly Dictionary<string, string> s_metadata = new(StringComparer.Ordinal) { ["format"] = "pt" };

    /// <summary>Writes <c>adapter_config.json</c> and <c>adapter_model.safetensors</c>; the folder appears complete or not at all.</summary>
    /// <param name="folder">Where to write. Other files of a folder that is replaced stay.</param>
    /// <param name="adapter">The adapter.</param>
    /// <param name="force">Replace an adapter that is there.</param>
    /// <exception cref="LoKrException"><c>LoKr.DestinationExists</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public static void Write(string folder, LoraAdapter adapter, bool force = false)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        using StagedDirectory staged = new(folder, force, keepOthers: true);
        Dictionary<string, torch.Tensor> named = adapter.Tensors.ToDictionary(static pair => PeftAdapterFolder.Prefix + pair.Key, static pair => pair.Value, StringComparer.Ordinal);
        SafetensorsWriter.Write(Path.Combine(staged.Path, PeftAdapterFolder.WeightsFile), named, s_metadata);
        AtomicFile.WriteText(Path.Combine(staged.Path, PeftAdapterFolder.ConfigFile), LoraConfigJson.Write(adapter.Config));
        staged.Commit();
    }
}
