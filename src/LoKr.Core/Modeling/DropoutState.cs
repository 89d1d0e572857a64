using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Modeling;

/// <summary>The point in the sequence of random numbers at which a block ran, to run it again with the same dropout.</summary>
internal sealed class DropoutState : IDisposable
{
    private readonly Tensor _state;
    private readonly long? _seed;

    private DropoutState(Tensor state, long? seed) => (_state, _seed) = (state, seed);

    /// <summary>Remembers the state of the CPU's generator. The state of a GPU's cannot be read from here: it starts anew from a drawn seed.</summary>
    public static DropoutState Start(Device device)
    {
        long? seed = null;
        if (device.type == DeviceType.CUDA)
        {
            using Tensor drawn = randint(0, int.MaxValue, [1], ScalarType.Int64);
            seed = drawn.ToInt64();
            cuda.manual_seed_all(seed.Value);
        }

        return new(random.get_rng_state().DetachFromDisposeScope(), seed);
    }

    /// <summary>Goes back to that point.</summary>
    public void Restore()
    {
        random.set_rng_state(_state);
        if (_seed is long seed)
        {
            cuda.manual_seed_all(seed);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _state.Dispose();
}
