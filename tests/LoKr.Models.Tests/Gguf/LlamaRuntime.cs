using System.Reflection;
using System.Runtime.InteropServices;
using LLama;
using LLama.Common;
using LLama.Native;
using TorchSharp;
using Xunit;

namespace LoKr.Models.Tests.Gguf;

/// <summary>llama.cpp itself, from the packages of LLamaSharp; on the CPU and on one thread, so that numbers repeat.</summary>
internal static class LlamaRuntime
{
    private static readonly Lazy<string?> s_problem = new(Load);

    /// <summary>Skips the calling test with a reason where the native library cannot be loaded.</summary>
    public static void Require() => Assert.SkipWhen(s_problem.Value is not null, $"llama.cpp cannot be loaded here: {s_problem.Value}");

    /// <summary>The logits of every token, [tokens, vocabulary].</summary>
    /// <param name="model">Path of a model.</param>
    /// <param name="ids">Token ids.</param>
    /// <param name="lora">Path of a LoRA, or null.</param>
    /// <param name="scale">Strength of the LoRA.</param>
    public static torch.Tensor Logits(string model, long[] ids, string? lora = null, float scale = 1)
    {
        ModelParams parameters = new(model) { ContextSize = 128, GpuLayerCount = 0, Threads = 1, BatchThreads = 1 };
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
        using LLamaContext context = weights.CreateContext(parameters);
        if (lora is not null)
        {
            context.NativeHandle.SetLoraAdapters([(weights.NativeHandle.LoadLoraFromFile(lora), scale)]);
        }

        LLamaBatch batch = new();
        for (int i = 0; i < ids.Length; i++)
        {
            batch.Add((int)ids[i], i, LLamaSeqId.Zero, true);
        }

        Assert.Equal(DecodeResult.Ok, context.NativeHandle.Decode(batch));
        float[] logits = [.. Enumerable.Range(0, ids.Length).SelectMany(i => context.NativeHandle.GetLogitsIth(i).ToArray())];
        return torch.tensor(logits, [ids.Length, logits.Length / ids.Length]);
    }

    // The native library stays in the packages folder; the plain build runs on every processor.
    private static string? Load()
    {
        string? package = typeof(LlamaRuntime).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().FirstOrDefault(static data => data.Key == "LlamaBackend")?.Value;
        (string platform, string library) = OperatingSystem.IsWindows() ? ("win", "llama.dll") : OperatingSystem.IsMacOS() ? ("osx", "libllama.dylib") : ("linux", "libllama.so");
        string root = Path.Combine(package ?? "", "LLamaSharpRuntimes", $"{platform}-{RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant()}", "native");
        string? path = Directory.Exists(root) ? Directory.GetFiles(root, library, SearchOption.AllDirectories).OrderByDescending(static file => file.Contains("noavx", StringComparison.Ordinal)).FirstOrDefault() : null;
        if (path is null)
        {
            return $"LLamaSharp.Backend.Cpu has no {library} in '{root}'.";
        }

        try
        {
            NativeLibraryConfig.All.WithLibrary(path, Path.Combine(Path.GetDirectoryName(path)!, library.Replace("llama", "mtmd", StringComparison.Ordinal)));
            NativeLibraryConfig.All.WithLogCallback(static (_, _) => { });
            NativeApi.llama_empty_call();
            return null;
        }
        catch (Exception exception) when (exception is DllNotFoundException or BadImageFormatException or TypeInitializationException or LLama.Exceptions.RuntimeError)
        {
            return exception.Message;
        }
    }
}
