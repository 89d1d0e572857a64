namespace LoKr.Core.Errors;

/// <summary>
/// The one exception type of the library: a stable <see cref="ErrorId"/> for scripts, a message for people,
/// and <see cref="Advice"/> that says what to do next.
/// </summary>
public sealed class LoKrException : Exception
{
    /// <summary>Creates the exception.</summary>
    /// <param name="errorId">Stable id from <see cref="ErrorIds"/>, for example <c>LoKr.AdapterShapeMismatch</c>.</param>
    /// <param name="kind">Kind of problem.</param>
    /// <param name="message">The problem, with the value, file or key that causes it.</param>
    /// <param name="advice">The next step, or null when the message says it all.</param>
    /// <param name="innerException">The cause, if another exception was.</param>
    public LoKrException(string errorId, LoKrErrorKind kind, string message, string? advice = null, Exception? innerException = null)
        : base(advice is null ? message : $"{message} {advice}", innerException)
    {
        ErrorId = errorId;
        Kind = kind;
        Summary = message;
        Advice = advice;
    }

    /// <summary>Stable id, safe to test in scripts.</summary>
    public string ErrorId { get; }

    /// <summary>Kind of problem.</summary>
    public LoKrErrorKind Kind { get; }

    /// <summary>The problem: <see cref="Exception.Message"/> without <see cref="Advice"/>.</summary>
    public string Summary { get; }

    /// <summary>The next step; already part of <see cref="Exception.Message"/>.</summary>
    public string? Advice { get; }

    /// <summary>The file, key, module or value that is wrong, if one is.</summary>
    public object? Target { get; init; }
}

/// <summary>Kinds of problems that a <see cref="LoKrException"/> reports; front ends map them to their own categories.</summary>
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
