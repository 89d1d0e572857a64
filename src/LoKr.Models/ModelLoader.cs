using LoKr.Core.Adapters;
using static TorchSharp.torch;

namespace LoKr.Models;

/// <summary>Builds a model from a Hugging Face folder: config.json → module tree on <c>meta</c> → weights read straight into place, frozen.</summary>
public static class ModelLoader
{
    /// <summary>Loads a folder; see <see cref="LoadWithReport"/> for what was skipped or made fresh.</summary>
    public static LoKrModel Load(string folder, ModelLoadOptions? options = null) => LoadWithReport(folder, options).Model;

    /// <summary>Loads a folder and reports what was skipped or made fresh.</summary>
    public static ModelLoadResult LoadWithReport(string folder, ModelLoadOptions? options = null) => throw new NotImplementedException();

    /// <summary>Builds the module tree of a configuration without weights, on <c>meta</c> unless the options say otherwise.</summary>
    public static nn.Module Build(ModelConfig config, ModelBuildOptions? options = null) => throw new NotImplementedException();
}
