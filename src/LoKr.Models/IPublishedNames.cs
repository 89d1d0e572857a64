using LoKr.Core.Modeling;

namespace LoKr.Models;

/// <summary>A model with published names, which remembers the names of the checkpoint it was read from, so that an export keeps them.</summary>
internal interface IPublishedNames : IModuleAliases
{
    /// <summary>Whether a checkpoint of this model gets the published names; what transformers writes until the loader knows better.</summary>
    bool SavesPublishedNames { get; set; }
}
