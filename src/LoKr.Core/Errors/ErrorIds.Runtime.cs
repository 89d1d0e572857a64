namespace LoKr.Core;

public static partial class ErrorIds
{
    /// <summary>No libtorch was found in any of the usual places, or the folder that was named holds none.</summary>
    public const string RuntimeNotFound = "LoKr.RuntimeNotFound";

    /// <summary>The libtorch found is of another version than TorchSharp was built for, or its version cannot be told.</summary>
    public const string RuntimeVersionMismatch = "LoKr.RuntimeVersionMismatch";

    /// <summary>The libraries were found but the system's loader refused them.</summary>
    public const string RuntimeLoadFailed = "LoKr.RuntimeLoadFailed";

    /// <summary>Another runtime than the one asked for is already loaded in this process.</summary>
    public const string RuntimeAlreadyLoaded = "LoKr.RuntimeAlreadyLoaded";

    /// <summary>The per-user runtime store cannot be written.</summary>
    public const string RuntimeStoreNotWritable = "LoKr.RuntimeStoreNotWritable";

    /// <summary>A device name is not auto, cpu, cuda or cuda:N.</summary>
    public const string DeviceInvalid = "LoKr.DeviceInvalid";

    /// <summary>A GPU was asked for and is not there.</summary>
    public const string DeviceNotFound = "LoKr.DeviceNotFound";
}
