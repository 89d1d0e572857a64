using System.Management.Automation;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using LoKr.Core.Errors;

namespace LoKr.PowerShell.Errors;

/// <summary>Turns every exception into an error record with a stable id, a category, a target and advice. The only place that does.</summary>
internal static class ErrorFactory
{
    /// <summary>Creates the record.</summary>
    /// <param name="exception">The exception.</param>
    /// <param name="command">Name of the cmdlet that failed; it decides which of its parameters the advice names.</param>
    /// <param name="target">The object being worked on; the exception's own target overrides it.</param>
    public static ErrorRecord Create(Exception exception, string command, object? target = null)
    {
        LoKrException known = Advise(exception as LoKrException ?? Translate(exception), command);
        ErrorRecord record = new(known, known.ErrorId, Category(known), known.Target ?? target)
        {
            // PowerShell shows the recommendation below the message, so the message must not hold it as well.
            ErrorDetails = new ErrorDetails(known.Summary) { RecommendedAction = known.Advice },
        };
        return record;
    }

    /// <summary>Whether an exception is PowerShell's own way of stopping or reporting, which passes unchanged.</summary>
    public static bool IsEngine(Exception exception) =>
        // The last one comes from -Confirm in a host that cannot ask.
        exception is RuntimeException or FlowControlException or PSInvalidOperationException;

    private static LoKrException Advise(LoKrException exception, string command)
    {
        if (Advice.For(exception, command) is not string advice || advice == exception.Advice)
        {
            return exception;
        }

        LoKrException advised = new(exception.ErrorId, exception.Kind, exception.Summary, advice, exception.InnerException) { Target = exception.Target };

        // The record shows where the library failed, not this line.
        return exception.StackTrace is string trace ? (LoKrException)ExceptionDispatchInfo.SetRemoteStackTrace(advised, trace) : advised;
    }

    private static ErrorCategory Category(LoKrException exception) => exception.ErrorId switch
    {
        ModuleErrorIds.AccessDenied => ErrorCategory.PermissionDenied,
        ErrorIds.RuntimeStoreUntrusted => ErrorCategory.SecurityError,
        ModuleErrorIds.Unexpected => ErrorCategory.NotSpecified,
        _ when exception.InnerException is UnauthorizedAccessException or System.Security.SecurityException => ErrorCategory.PermissionDenied,
        _ => exception.Kind switch
        {
            LoKrErrorKind.InvalidArgument => ErrorCategory.InvalidArgument,
            LoKrErrorKind.InvalidData => ErrorCategory.InvalidData,
            LoKrErrorKind.NotFound => ErrorCategory.ObjectNotFound,
            LoKrErrorKind.AlreadyExists => ErrorCategory.ResourceExists,
            LoKrErrorKind.Unavailable => ErrorCategory.ResourceUnavailable,
            LoKrErrorKind.NotSupported => ErrorCategory.NotImplemented,
            LoKrErrorKind.InvalidOperation => ErrorCategory.InvalidOperation,
            LoKrErrorKind.LimitExceeded => ErrorCategory.LimitsExceeded,
            LoKrErrorKind.InputOutput => ErrorCategory.DeviceError,
            _ => ErrorCategory.NotSpecified,
        },
    };

    private static LoKrException Translate(Exception exception) => exception switch
    {
        TypeInitializationException { InnerException: { } inner } => inner as LoKrException ?? Translate(inner),
        System.Reflection.TargetInvocationException { InnerException: { } inner } => inner as LoKrException ?? Translate(inner),
        OutOfMemoryException => OutOfMemory(exception),
        // libtorch reports its own shortage as a plain torch error; the text is all there is.
        ExternalException when exception.Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase)
            || exception.Message.Contains("not enough memory", StringComparison.OrdinalIgnoreCase) => OutOfMemory(exception),
        ExternalException => new LoKrException(ModuleErrorIds.TorchError, LoKrErrorKind.InvalidOperation,
            $"libtorch refused the operation: {FirstLine(exception.Message)}", null, exception),
        UnauthorizedAccessException => new LoKrException(ModuleErrorIds.AccessDenied, LoKrErrorKind.InputOutput,
            exception.Message, "Check the permissions of the file or folder.", exception),
        FileNotFoundException or DirectoryNotFoundException => new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound,
            exception.Message, "Check the spelling of the path.", exception),
        IOException => new LoKrException(ModuleErrorIds.InputOutput, LoKrErrorKind.InputOutput,
            exception.Message, "Check that the disk has room and that no other program holds the file.", exception),
        ArgumentException => new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, exception.Message, null, exception),
        _ => new LoKrException(ModuleErrorIds.Unexpected, LoKrErrorKind.InvalidOperation,
            $"{exception.GetType().Name}: {exception.Message}", "This is a bug in the module: please report it with $Error[0].Exception.InnerException.", exception),
    };

    private static LoKrException OutOfMemory(Exception exception) => new(ModuleErrorIds.OutOfMemory, LoKrErrorKind.LimitExceeded,
        $"Memory ran out: {FirstLine(exception.Message)}", null, exception);

    // The lines after the first of a torch error are a C++ stack trace.
    private static string FirstLine(string text) => text.AsSpan().Trim().ToString().Split('\n', 2)[0].TrimEnd();
}
