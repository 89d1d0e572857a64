using System.Collections.ObjectModel;
using System.Text.Json.Nodes;
using TorchSharp;
using TorchSharp.Modules;

namespace LoKr.Core.Nn;

/// <summary>A model of a Hugging Face architecture. Implemented by the root <c>nn.Module</c>.</summary>
public interface IPretrainedModel
{
    /// <summary>The <c>model_type</c> of config.json, for example <c>bert</c>.</summary>
    string ModelType { get; }

    /// <summary>The class name of the architecture, for example <c>BertForSequenceClassification</c>.</summary>
    string Architecture { get; }

    /// <summary>The config.json that an export writes (labels and architecture up to date).</summary>
    JsonObject Config { get; }

    /// <summary>Full name of the output embeddings module (<c>lm_head</c>), which all-linear leaves out; null where there is none.</summary>
    string? OutputEmbeddingsName => null;

    /// <summary>Names of parameters that share storage with another: duplicate name → the name that is saved.</summary>
    IReadOnlyDictionary<string, string> TiedParameters => ReadOnlyDictionary<string, string>.Empty;
}

/// <summary>A model that scores labels: for each token sequence of a batch, or for each token.</summary>
public interface IClassifier : IPretrainedModel
{
    /// <summary>Label names in the order of the logits.</summary>
    IReadOnlyList<string> Labels { get; }

    /// <summary>Longest sequence the position embeddings allow, special tokens included.</summary>
    int MaxSequenceLength { get; }

    /// <summary>The id by which the model itself tells padding from tokens, so that batches must be padded with it; null where the mask tells.</summary>
    int? PadId => null;

    /// <summary>Number of segments that the model tells apart in a pair of texts; below 2 it takes no <c>token_type_ids</c>.</summary>
    int TokenTypeCount => 0;
}

/// <summary>A model that returns one score per label for each token sequence of a batch.</summary>
public interface ISequenceClassifier : IClassifier
{
    /// <summary>Scores of a batch.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding on the right, int64 [batch, length].</param>
    /// <param name="tokenTypeIds">Segment of each token of a pair of texts, int64 [batch, length]; null for one text, and where a model has no segments.</param>
    /// <returns>Logits [batch, labels].</returns>
    torch.Tensor Classify(torch.Tensor inputIds, torch.Tensor attentionMask, torch.Tensor? tokenTypeIds = null);
}

/// <summary>A model that returns one score per label for each token of a batch.</summary>
public interface ITokenClassifier : IClassifier
{
    /// <summary>Scores of the tokens of a batch.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding on the right, int64 [batch, length].</param>
    /// <param name="tokenTypeIds">Segment of each token, int64 [batch, length]; null for segment 0, and where a model has no segments.</param>
    /// <returns>Logits [batch, length, labels]; those of padding have no meaning.</returns>
    torch.Tensor ClassifyTokens(torch.Tensor inputIds, torch.Tensor attentionMask, torch.Tensor? tokenTypeIds = null);
}

/// <summary>A model that predicts the next token.</summary>
public interface ICausalLanguageModel : IPretrainedModel
{
    /// <summary>Longest sequence the model was made for (<c>max_position_embeddings</c>).</summary>
    int MaxSequenceLength { get; }

    /// <summary>Ids that end a generated text (generation_config.json, else config.json).</summary>
    IReadOnlyList<int> EosIds { get; }

    /// <summary>How generation_config.json says that the model generates.</summary>
    /// <exception cref="Errors.LoKrException"><see cref="Errors.ErrorIds.ModelConfigInvalid"/>: a value has another type.</exception>
    GenerationSettings ReadGenerationSettings() => new();

    /// <summary>Scores of every position of a batch.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding on the right, int64 [batch, length]; null when there is no padding.</param>
    /// <returns>Logits [batch, length, vocabulary].</returns>
    torch.Tensor Logits(torch.Tensor inputIds, torch.Tensor? attentionMask = null);

    /// <summary>Hidden states before the output embeddings, so that a loss can score only the positions it needs.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding on the right, int64 [batch, length]; null when there is no padding.</param>
    /// <param name="places">
    /// Places that are read, int64 [count], each text · length + position; null for all. What only the others need is not computed.
    /// </param>
    /// <returns>Hidden states [batch, length, hidden], or [count, hidden] of the places.</returns>
    torch.Tensor HiddenStates(torch.Tensor inputIds, torch.Tensor? attentionMask = null, torch.Tensor? places = null);

    /// <summary>Applies the output embeddings to hidden states [..., hidden].</summary>
    torch.Tensor Project(torch.Tensor hiddenStates);

    /// <summary>Generates a continuation with a key-value cache.</summary>
    /// <param name="promptIds">Token ids of the prompt.</param>
    /// <param name="options">Length, sampling and seed.</param>
    /// <param name="cancellationToken">Stops between tokens.</param>
    /// <returns>The new ids, without the prompt and without the id that ended the text.</returns>
    IReadOnlyList<int> Generate(IReadOnlyList<int> promptIds, GenerationOptions options, CancellationToken cancellationToken = default);
}

/// <summary>A language model that reads several texts in one row of a batch, none of which sees another.</summary>
public interface IPackedLanguageModel : ICausalLanguageModel
{
    /// <summary>Hidden states before the output embeddings, for every text those that it would have in a row of its own.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length]: the texts of a row one after the other, padding on the right.</param>
    /// <param name="positionIds">Position of every token in its own text, int64 [batch, length]: a 0 begins a text. 0 for padding.</param>
    /// <param name="places">Places that are read, int64 [count], each row · length + position; null for all.</param>
    /// <returns>Hidden states [batch, length, hidden], or [count, hidden] of the places.</returns>
    torch.Tensor PackedHiddenStates(torch.Tensor inputIds, torch.Tensor positionIds, torch.Tensor? places = null);
}

/// <summary>A model that turns token sequences into vectors that other models are conditioned on.</summary>
public interface ITextEncoder : IPretrainedModel
{
    /// <summary>Longest sequence the position embeddings allow, special tokens included.</summary>
    int MaxSequenceLength { get; }

    /// <summary>Encodes a batch.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding on the right, int64 [batch, length]; null lets padding take part, as diffusion pipelines do.</param>
    /// <param name="withPenultimate">Whether the hidden states before the last layer are kept, which Stable Diffusion XL takes.</param>
    /// <returns>The vector of every token and one of every text.</returns>
    TextEncoderOutput Encode(torch.Tensor inputIds, torch.Tensor? attentionMask = null, bool withPenultimate = false);
}

/// <summary>The outputs of a text encoder for a batch.</summary>
/// <param name="LastHiddenState">Hidden states after the last layer and its norm [batch, length, hidden].</param>
/// <param name="Pooled">One vector a text: that of the token that ends it [batch, hidden], projected where the model has a projection [batch, projection].</param>
public sealed record TextEncoderOutput(torch.Tensor LastHiddenState, torch.Tensor Pooled)
{
    /// <summary>Hidden states before the last layer, without the norm [batch, length, hidden]; null unless asked for.</summary>
    public torch.Tensor? Penultimate { get; init; }
}

/// <summary>A module that runs blocks one after the other and can recompute their activations in the backward pass.</summary>
public interface ICheckpointedBlocks
{
    /// <summary>Where blocks are run while gradient checkpointing is on; null otherwise.</summary>
    ActivationCheckpoints? Checkpoints { get; set; }
}

/// <summary>
/// A model whose modules have two generations of names: those of the module tree, which are transformers 5's, and those that checkpoints,
/// older adapters and tools were published with. Implemented by the root <c>nn.Module</c> beside <see cref="IPretrainedModel"/>.
/// </summary>
public interface IModuleAliases
{
    /// <summary>
    /// The name in the module tree of a module, parameter or adapter tensor with a published name
    /// (<c>vit.encoder.layer.0.attention.attention.query</c> → <c>vit.layers.0.attention.q_proj</c>).
    /// </summary>
    /// <param name="name">Full dotted name; the part after the one that differs is unchanged.</param>
    /// <returns>The name in the module tree; the same name where it has no other.</returns>
    string Canonical(string name);

    /// <summary>The published name of a name in the module tree: the other way round.</summary>
    /// <param name="name">Full dotted name in the module tree; the part after the one that differs is unchanged.</param>
    /// <returns>The published name; the same name where it has no other.</returns>
    string Published(string name);
}

/// <summary>
/// A module outside TorchSharp that holds parameters of its own (an embedding, a norm), so that a loader can replace
/// <c>meta</c> parameters by real ones, or share one between two modules.
/// </summary>
public interface IParameterOwner
{
    /// <summary>Replaces the parameter of a name: disposes the old one unless it is the same, and registers the new one.</summary>
    void SetParameter(string name, Parameter parameter);
}

/// <summary>How a text is generated.</summary>
public sealed record GenerationOptions
{
    /// <summary>Most tokens to generate.</summary>
    public int MaxNewTokens { get; init; } = 64;

    /// <summary>Divides the logits; 0 takes the most likely token (greedy).</summary>
    public double Temperature { get; init; }

    /// <summary>Samples among the most likely tokens only; 0 for no limit.</summary>
    public int TopK { get; init; }

    /// <summary>Samples among the most likely tokens whose probabilities reach this sum; 1 for no limit.</summary>
    public double TopP { get; init; } = 1;

    /// <summary>
    /// Divides positive logits of tokens that occurred already, in the prompt or since, and multiplies negative ones (Keskar et al.,
    /// arXiv:1909.05858), before the temperature; 1 for no penalty.
    /// </summary>
    public double RepetitionPenalty { get; init; } = 1;

    /// <summary>Seed of the sampling; null takes a fresh one.</summary>
    public long? Seed { get; init; }

    /// <summary>Ids that end the text in addition to the model's own.</summary>
    public IReadOnlyList<int> StopIds { get; init; } = [];

    /// <summary>Gets every token as it comes, on the thread that generates; null for none.</summary>
    public Action<int>? OnToken { get; init; }
}

/// <summary>Settings of generation_config.json of a model; null where it has none.</summary>
public sealed record GenerationSettings
{
    /// <summary>Whether tokens are drawn (<c>do_sample</c>).</summary>
    public bool? DoSample { get; init; }

    /// <summary><c>temperature</c>.</summary>
    public double? Temperature { get; init; }

    /// <summary><c>top_k</c>; 0 for no limit.</summary>
    public int? TopK { get; init; }

    /// <summary><c>top_p</c>.</summary>
    public double? TopP { get; init; }

    /// <summary><c>repetition_penalty</c>.</summary>
    public double? RepetitionPenalty { get; init; }

    /// <summary><c>max_new_tokens</c>.</summary>
    public int? MaxNewTokens { get; init; }

    /// <summary><c>max_length</c>, the prompt included.</summary>
    public int? MaxLength { get; init; }

    /// <summary>Settings of the file that are not applied, each as key and value.</summary>
    public IReadOnlyList<string> Ignored { get; init; } = [];
}
