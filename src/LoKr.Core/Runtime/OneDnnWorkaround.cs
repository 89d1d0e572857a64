using System.Runtime.InteropServices;
using LoKr.Core.Errors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Runtime;

/// <summary>
/// libtorch computes convolutions by oneDNN, which leaves parts of padded weights out where the processor does not tell the sizes of its caches, as in
/// many virtual machines (uxlfoundation/oneDNN#5313): the gradient of a convolution whose channels do not fill a vector, such as the last one of Stable
/// Diffusion's UNet, is wrong there or NaN, without an error. Where small gradients are wrong, oneDNN is turned off in this process, and libtorch computes
/// convolutions itself. NNPACK, which libtorch tries for each convolution, is turned off where it does not know the processor: it writes a line to the
/// standard error each time.
/// </summary>
internal static unsafe class OneDnnWorkaround
{
    /// <summary>Checks the loaded libtorch and turns off what gives wrong numbers.</summary>
    /// <param name="folder">Folder of libtorch.</param>
    /// <param name="workarounds">Gets a sentence if oneDNN was turned off.</param>
    /// <param name="isRight">Whether gradients of convolutions are right; null for <see cref="ConvolutionsAreRight()"/>.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.RuntimeLoadFailed"/>: gradients are wrong, and oneDNN cannot be turned off.</exception>
    public static void Apply(string folder, List<string> workarounds, Func<bool>? isRight = null)
    {
        isRight ??= ConvolutionsAreRight;
        LibtorchContext context = new(folder);
        if (context.IsNnpackUnsupported())
        {
            context.TurnOffNnpack();
        }

        if (isRight())
        {
            return;
        }

        if (!context.TurnOffOneDnn() || !isRight())
        {
            throw new LoKrException(
                ErrorIds.RuntimeLoadFailed,
                LoKrErrorKind.Unavailable,
                $"oneDNN of the libtorch in '{folder}' computes wrong gradients of convolutions on this processor, and cannot be turned off.",
                "Set the environment variable ONEDNN_MAX_CPU_ISA to SSE41 before the process starts: slower, but right.")
            {
                Target = folder,
            };
        }

        workarounds.Add("oneDNN computes wrong gradients of convolutions on this processor, so it is turned off in this process: libtorch computes convolutions itself, more slowly.");
    }

    /// <summary>
    /// Whether small convolutions and their gradients in float32, which are oneDNN's, equal those in float64, which are libtorch's own. Two images, and channels that
    /// fill no vector of 16 floats (AVX-512), of 8 (AVX2), or only 4 of one (AVX): one image, or channels that fill vectors, take other ways.
    /// </summary>
    internal static bool ConvolutionsAreRight() => ConvolutionsAreRight(24, 8) && ConvolutionsAreRight(8, 4) && ConvolutionsAreRight(20, 20);

    // What oneDNN leaves out keeps what the memory held before, and fresh memory is zero, which would be right: so the memory is filled with NaN first.
    private static bool ConvolutionsAreRight(int inputs, int outputs)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable normal = inference_mode(false);
        using IDisposable grad = enable_grad();
        Tensor[] exact = Convolve(inputs, outputs, ScalarType.Float64);
        FillMemory(inputs, outputs);

        // NaN is not below anything.
        return Convolve(inputs, outputs, ScalarType.Float32).Zip(exact).All(static pair =>
            (pair.First.to(ScalarType.Float64) - pair.Second).abs().max().ToDouble() < 1e-4 * pair.Second.abs().max().ToDouble());
    }

    // The output, and the gradients of the input and the weight.
    private static Tensor[] Convolve(int inputs, int outputs, ScalarType type)
    {
        Tensor x = Waves(type, 2, inputs, 4, 4).requires_grad_(true);
        Tensor weight = Waves(type, outputs, inputs, 3, 3).requires_grad_(true);
        Tensor y = nn.functional.conv2d(x, weight, padding: [1, 1]);
        return [y.detach(), .. autograd.grad([y], [x, weight], [Waves(type, 2, outputs, 4, 4)])];
    }

    // The sizes of the weights, outputs and inputs, padded to vectors of 8 and of 16. What is freed is what the next tensors of these sizes get.
    private static void FillMemory(int inputs, int outputs)
    {
        using DisposeScope scope = NewDisposeScope();
        foreach (long size in ((int[])[8, 16]).SelectMany(vector => Sizes(Padded(inputs, vector), Padded(outputs, vector))).Distinct())
        {
            for (int i = 0; i < 64; i++)
            {
                full(size, float.NaN);
            }
        }
    }

    private static long Padded(int channels, int vector) => (channels + vector - 1) / vector * vector;

    private static long[] Sizes(long inputs, long outputs) => [outputs * inputs * 3 * 3, 2 * outputs * 4 * 4, 2 * inputs * 4 * 4];

    // Fixed numbers: the generators of the process stay as they are.
    private static Tensor Waves(ScalarType type, params long[] shape) =>
        arange(shape.Aggregate(1L, static (product, size) => product * size), ScalarType.Float64).mul_(0.7).sin_().reshape(shape).to(type);

    /// <summary>Switches of libtorch that TorchSharp lacks, by the names that its C++ functions have in the library.</summary>
    private sealed class LibtorchContext(string folder)
    {
        private readonly nint _library = NativeNames.Find(folder, "torch_cpu") is string path && NativeLibrary.TryLoad(path, out nint handle) ? handle : 0;

        /// <summary>Whether NNPACK says that it cannot work here; false where it cannot be asked.</summary>
        public bool IsNnpackUnsupported() => Find("nnp_initialize") is nint function && ((delegate* unmanaged<int>)function)() != 0;

        /// <summary>Lets convolutions take other ways than NNPACK.</summary>
        public bool TurnOffNnpack() => Set("_ZN2at7Context20setUserEnabledNNPACKEb", "?setUserEnabledNNPACK@Context@at@@QEAAX_N@Z");

        /// <summary>Lets everything take other ways than oneDNN.</summary>
        public bool TurnOffOneDnn() => Set("_ZN2at7Context20setUserEnabledMkldnnEb", "?setUserEnabledMkldnn@Context@at@@QEAAX_N@Z");

        private bool Set(string unixName, string windowsName)
        {
            if (Find("_ZN2at13globalContextEv", "?globalContext@at@@YAAEAVContext@1@XZ") is not nint global || Find(unixName, windowsName) is not nint function)
            {
                return false;
            }

            ((delegate* unmanaged<nint, byte, void>)function)(((delegate* unmanaged<nint>)global)(), 0);
            return true;
        }

        private nint? Find(string unixName, string? windowsName = null) =>
            _library != 0 && NativeLibrary.TryGetExport(_library, OperatingSystem.IsWindows() ? windowsName ?? unixName : unixName, out nint address) ? address : null;
    }
}
