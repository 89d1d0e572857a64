using LoKr.Core.Modeling;
using static TorchSharp.torch;

namespace LoKr.Models.Generation;

/// <summary>A causal language model that can go on from the keys and values of earlier positions.</summary>
internal interface ICachedLanguageModel : ICausalLanguageModel
{
    /// <summary>Number of token ids.</summary>
    int VocabularySize { get; }

    /// <summary>An empty cache for one sequence.</summary>
    KeyValueCache CreateCache();

    /// <summary>Hidden states [1, length, hidden] of the ids that follow what the cache holds; the cache grows by them.</summary>
    Tensor HiddenStates(Tensor inputIds, KeyValueCache cache);
}
