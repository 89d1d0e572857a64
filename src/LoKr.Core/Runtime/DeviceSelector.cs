using TorchSharp;

namespace LoKr.Core.Runtime;

/// <summary>Turns <c>auto</c>, <c>cpu</c>, <c>cuda</c> or <c>cuda:N</c> into a device that exists.</summary>
public static class DeviceSelector
{
    /// <summary>Selects a device; a GPU that was asked for and is missing is an error.</summary>
    public static torch.Device Select(string device) => throw new NotImplementedException();
}
