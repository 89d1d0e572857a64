using TorchSharp.Modules;

namespace LoKr.Core.Modeling;

/// <summary>
/// A module outside TorchSharp that holds parameters of its own (an embedding, a norm), so that a loader can put
/// real parameters in the place of <c>meta</c> ones, or share one between two modules.
/// </summary>
public interface IParameterOwner
{
    /// <summary>Puts a parameter in the place of the one with that name, disposes the old one unless it is the same, and registers the new one.</summary>
    void SetParameter(string name, Parameter parameter);
}
