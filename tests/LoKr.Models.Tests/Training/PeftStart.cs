using LoKr.Core.Layouts;
using LoKr.Core.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Training;

/// <summary>A PEFT adapter folder on a model.</summary>
internal static class PeftStart
{
    public static LoKrAdapter Load(LoKrModel model, string folder)
    {
        using DisposeScope scope = NewDisposeScope();
        using PeftAdapterFolder files = PeftAdapterFolder.Read(folder);
        return model.LoadAdapter(files.Config, files.Tensors.Entries.Keys.ToDictionary(name => name, name => files.Tensors.Read(name), StringComparer.Ordinal));
    }
}
