namespace LoKr.Core;

/// <summary>What kind of problem a <see cref="LoKrException"/> reports; front ends map it to their own categories.</summary>
public enum LoKrErrorKind
{
    /// <summary>An argument or a configuration value cannot be used.</summary>
    InvalidArgument,

    /// <summary>A file or the data in it is damaged or does not fit.</summary>
    InvalidData,

    /// <summary>A file, module, adapter or key does not exist.</summary>
    NotFound,

    /// <summary>The destination or name is already taken.</summary>
    AlreadyExists,

    /// <summary>A native library, device or other resource is missing.</summary>
    Unavailable,

    /// <summary>The request is understood but not supported.</summary>
    NotSupported,

    /// <summary>The object is in a state that does not allow the operation.</summary>
    InvalidOperation,

    /// <summary>A limit such as memory, length or size is exceeded.</summary>
    LimitExceeded,

    /// <summary>Reading or writing a file failed.</summary>
    InputOutput,
}
