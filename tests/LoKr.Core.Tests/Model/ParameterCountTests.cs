using LoKr.Core.Model;
using Xunit;

namespace LoKr.Core.Tests.Model;

public sealed class ParameterCountTests
{
    [Fact]
    public void Reads_as_PEFT_prints_it() =>
        Assert.Equal("trainable params: 33,676 || all params: 22,751,512 || trainable%: 0.1480", new ParameterCount(33_676, 22_751_512).ToString());
}
