using LoKr.Core.Errors;
using Xunit;

namespace LoKr.Testing;

/// <summary>Assertions on <see cref="LoKrException"/>.</summary>
public static class ErrorAssert
{
    /// <summary>Asserts that an action fails with an error id and that the message says all of the given parts.</summary>
    public static LoKrException Throws(string errorId, Action action, params string[] says)
    {
        LoKrException error = Assert.Throws<LoKrException>(action);
        Assert.Equal(errorId, error.ErrorId);
        foreach (string part in says)
        {
            Assert.Contains(part, error.Message, StringComparison.Ordinal);
        }

        return error;
    }
}
