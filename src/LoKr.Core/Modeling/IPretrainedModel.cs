using System.Text.Json.Nodes;

namespace LoKr.Core.Modeling;

/// <summary>What Core needs to know of a model that came from a Hugging Face folder. Implemented by the root <c>nn.Module</c>.</summary>
public interface IPretrainedModel
{
    /// <summary>The <c>model_type</c> of config.json, for example <c>bert</c>.</summary>
    string ModelType { get; }

    /// <summary>The class name of the architecture, for example <c>BertForSequenceClassification</c>.</summary>
    string Architecture { get; }

    /// <summary>The config.json that an export writes (labels and architecture up to date).</summary>
    JsonObject Config { get; }

    /// <summary>Full name of the output embeddings module (<c>lm_head</c>), which all-linear leaves out; null where there is none.</summary>
    string? OutputEmbeddingsName { get; }

    /// <summary>Names of parameters that share storage with another: duplicate name → the name that is saved.</summary>
    IReadOnlyDictionary<string, string> TiedParameters { get; }
}
