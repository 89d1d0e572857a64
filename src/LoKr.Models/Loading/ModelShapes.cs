using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;
using static TorchSharp.torch;

namespace LoKr.Models.Loading;

/// <summary>The module tree of a Hugging Face folder without its weights, on <c>meta</c>: names and shapes from config.json alone.</summary>
public static class ModelShapes
{
    private static readonly string[] s_components = ["text_encoder", "text_encoder_2", "unet"];
    private static readonly string[] s_weights = ["model", "diffusion_pytorch_model"];

    /// <summary>Reads the shapes of a folder: of a pipeline if it holds <c>model_index.json</c>, of one model otherwise. It may have no weights.</summary>
    /// <param name="folder">The folder.</param>
    /// <returns>A model, or the components of a pipeline that take adapters; the caller disposes it. It cannot run.</returns>
    /// <exception cref="LoKrException">As for <see cref="ModelLoader.Build"/>, and <see cref="ErrorIds.PipelineInvalid"/> and the other errors of a pipeline's folder.</exception>
    public static IAdaptable Read(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        string full = Path.GetFullPath(folder);
        return StableDiffusionLoader.IsPipeline(full) ? PipelineShapes.Read(full) : ReadModel(full);
    }

    /// <summary>Reads the shapes of one model and its tokenizer: for what depends on texts but not on weights.</summary>
    /// <param name="folder">The folder.</param>
    /// <returns>A model that cannot run; the caller disposes it.</returns>
    /// <exception cref="LoKrException">As for <see cref="ModelLoader.Build"/>, and the errors of a tokenizer.</exception>
    public static LoKrModel ReadWithTokenizer(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        ModelConfig config = ModelConfig.Load(folder);
        return new(ModelLoader.Build(config), folder, ModelLoader.LoadTokenizer(folder, config, []));
    }

    /// <summary>
    /// The modules with weights in a folder, from the headers of its safetensors files: libtorch is not needed, and it takes a moment for a model of any
    /// size. Names are those of the checkpoint, which may lack the prefix of the model with a head; in a pipeline they are those within a component.
    /// </summary>
    /// <param name="folder">Folder of a model or a pipeline.</param>
    /// <returns>The names; none for a folder without weights.</returns>
    /// <exception cref="LoKrException">The files cannot be read.</exception>
    public static IReadOnlyList<ModuleName> ReadNames(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        IEnumerable<string> parts = StableDiffusionLoader.IsPipeline(folder) ? s_components.Select(component => Path.Combine(folder, component)) : [folder];
        return [.. parts.Where(Directory.Exists).SelectMany(ReadWeights).DistinctBy(static module => module.Name)];
    }

    private static IEnumerable<ModuleName> ReadWeights(string folder)
    {
        const string Weight = ".weight";
        string? file = s_weights.FirstOrDefault(name => File.Exists(Path.Combine(folder, name + ".safetensors")) || File.Exists(Path.Combine(folder, name + ".safetensors.index.json")));
        if (file is null)
        {
            return [];
        }

        using CheckpointReader reader = CheckpointReader.Open(folder, file);
        return [.. reader.Entries.Values.Where(static entry => entry.Name.EndsWith(Weight, StringComparison.Ordinal))
            .Select(static entry => new ModuleName(entry.Name[..^Weight.Length], entry.Shape.Count > 1))];
    }

    private static LoKrModel ReadModel(string folder) => new(ModelLoader.Build(ModelConfig.Load(folder)), folder);

    private sealed class PipelineShapes(string name, string folder, IReadOnlyDictionary<string, LoKrModel> models) : IAdaptable
    {
        public string Name => name;

        public string? SourcePath => folder;

        public IReadOnlyDictionary<string, LoKrModel> Models => models;

        public Device Device => META;

        public ScalarType DType => ScalarType.Float32;

        public LoKrTrainingResult? LastTraining { get; set; }

        public static PipelineShapes Read(string folder)
        {
            PipelineIndex index = PipelineIndex.Read(folder);
            Dictionary<string, LoKrModel> models = new(StringComparer.Ordinal);
            try
            {
                foreach (string component in s_components.Where(index.Components.Contains))
                {
                    models.Add(component, ReadModel(index.PathOf(component)));
                }

                return new(index.ClassName, folder, models);
            }
            catch
            {
                Dispose(models);
                throw;
            }
        }

        public ParameterCount CountParameters() => new(
            models.Values.Sum(static model => model.CountParameters().Trainable), models.Values.Sum(static model => model.CountParameters().Total));

        public void Dispose() => Dispose(models);

        private static void Dispose(IReadOnlyDictionary<string, LoKrModel> models)
        {
            foreach (LoKrModel model in models.Values)
            {
                model.Dispose();
            }
        }
    }
}

/// <summary>A module of a checkpoint.</summary>
/// <param name="Name">Its name.</param>
/// <param name="IsAdaptable">Whether its weight has the dimensions of a layer that can take an adapter.</param>
public sealed record ModuleName(string Name, bool IsAdaptable);
