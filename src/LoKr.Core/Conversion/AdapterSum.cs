using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>
/// A weighted sum of adapters as one adapter, or one adapter with other ranks, factors or another type. Works on the factors; a dense
/// delta, one layer at a time, is formed only where the sizes of the factors do not divide each other.
/// </summary>
public static class AdapterSum
{
    /// <summary>
    /// Writes Σ weight·adapter. Without a limit the ranks of the terms add up, so that what a Kronecker product can hold of the sum is kept;
    /// factors of one adapter whose shapes stay are copied.
    /// </summary>
    /// <param name="terms">Files or folders of any layout, with their weights.</param>
    /// <param name="destination">Folder or file to write.</param>
    /// <param name="options">Limits and form.</param>
    /// <param name="warnings">Warnings about the files and the result.</param>
    /// <param name="onProgress">Told the share of the work that is done, from 0 to 1.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException">
    /// A file is not valid; <c>LoKr.ConversionUnsupported</c> for DoRA, or for modules that are saved whole in one of several adapters;
    /// <c>LoKr.AdapterModulesUnknown</c>, <c>LoKr.AdapterShapeMismatch</c>; the limits are invalid; the errors of writing. Nothing is written then.
    /// </exception>
    public static LoKrFitResult Write(
        IReadOnlyList<AdapterTerm> terms, string destination, AdapterSumOptions options, out IReadOnlyList<string> warnings, Action<double>? onProgress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        string full = Path.GetFullPath(destination);
        using DisposeScope scope = NewDisposeScope();
        Sources sources = Sources.Read(terms, options);
        AdapterLayout layout = options.Fit.Layout ?? sources.Layout;
        AdapterWriter.CheckDestination(full, layout, options.Fit.Force);
        AdapterFitting fitting = new(sources.Layers, options.Fit, FittedAdapter.Conv1dOf(layout), onProgress);
        IReadOnlyList<LayerFit> fits = fitting.Run(options.Fit.DType ?? sources.DType, cancellation);
        if (fits.Count == 0)
        {
            throw new LoKrException(ErrorIds.NoModuleTargeted, LoKrErrorKind.InvalidArgument,
                $"Nothing is left of {string.Join(", ", terms.Select(static term => $"'{term.Path}'"))}: the number of parameters is too small for any layer.", "Raise the limit.");
        }

        (LoKrFitResult result, IReadOnlyList<string> written) = FittedAdapter.Write(full, layout, fits, sources.Rest, sources.Start, new() { Force = options.Fit.Force, Component = options.Component });
        string[] guessed = [.. fits.Where(fit => fit.Layer is SumLayer { IsGuessed: true } && (!fit.Shapes.LowRankW2 || options.Fit.UseEffectiveConv2d == true)).Select(static fit => fit.Layer.Name)];
        warnings = [.. sources.Warnings, .. written];
        if (guessed.Length > 0)
        {
            warnings =
            [
                $"{guessed.Length} modules were taken for linear layers, because factors of rank r do not tell them from convolutions: {string.Join(", ", guessed.Take(5))}{(guessed.Length > 5 ? " …" : "")}. If they are convolutions, give the base model.",
                .. warnings,
            ];
        }

        return result;
    }

    /// <summary>Throws what <see cref="Write"/> would throw before it fits anything. Nothing is written.</summary>
    /// <param name="terms">Files or folders with their weights.</param>
    /// <param name="destination">Folder or file that would be written.</param>
    /// <param name="options">Limits and form.</param>
    /// <exception cref="LoKrException">As for <see cref="Write"/>.</exception>
    public static void Check(IReadOnlyList<AdapterTerm> terms, string destination, AdapterSumOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        using DisposeScope scope = NewDisposeScope();
        Sources sources = Sources.Read(terms, options);
        AdapterWriter.CheckDestination(Path.GetFullPath(destination), options.Fit.Layout ?? sources.Layout, options.Fit.Force);
    }

    /// <summary>A layer of the sum.</summary>
    private sealed class SumLayer(AdapterComponent component, string name, IReadOnlyList<long> weightShape, IReadOnlyList<SumTerm> terms, bool copies)
        : FitLayer(component, name, weightShape)
    {
        /// <summary>Whether only the base model could tell a linear layer from a convolution, whose kernel counts as columns of w2 then.</summary>
        public bool IsGuessed { get; init; }

        public override FactorShapes? Natural(AdapterFitOptions options)
        {
            // The sizes of the first term. The rank at which nothing is lost that a Kronecker product can hold is the sum of all ranks.
            (KroneckerFactors first, _) = (terms[0].Factors, terms[0].Scale);
            bool lowRankW2 = terms.All(static term => term.Factors.W2A is not null);
            long rank = terms.Sum(static term => term.InnerRank);
            lowRankW2 &= rank < Math.Max(first.K, first.N) / 2.0 || terms.Count == 1;
            bool lowRankW1 = terms.Count == 1 && first.W1A is not null;
            bool tucker = lowRankW2 && (options.UseEffectiveConv2d ?? terms.Any(static term => term.Factors.Core is not null)) && first.Kernel.Any(static size => size != 1);
            long outerRank = lowRankW1 ? first.W1A!.shape[1] : rank;
            return new(first.L, first.M, first.K, first.N, first.Kernel, lowRankW2 ? rank : outerRank, lowRankW1, lowRankW2, tucker, first.IsReversed && !lowRankW2)
            {
                OuterRank = lowRankW1 && lowRankW2 && outerRank != rank ? outerRank : null,
            };
        }

        public override Func<FactorShapes, KroneckerTarget>? Open(FitMemory memory)
        {
            (KroneckerFactors Factors, double Scale)[] products = [.. terms.Select(static term => (term.Factors, term.Scale))];
            return shapes => KroneckerTarget.Of(products, shapes);
        }

        public override (IReadOnlyDictionary<string, Tensor> Factors, double Scale)? TakeUnchanged(FactorShapes shapes) =>
            copies && terms is [SumTerm { Factors: KroneckerFactors own, Scale: double scale }] && own.Scalar is null && own.IsReversed == shapes.Reversed
            && shapes.Tensors() is IReadOnlyList<(string Suffix, long[] Shape)> wanted && wanted.Count == own.Tensors.Count
            && wanted.All(tensor => own.Tensors.TryGetValue(tensor.Suffix, out Tensor? factor) && factor.shape.AsSpan().SequenceEqual(tensor.Shape))
                ? (own.Tensors, scale)
                : null;
    }

    private sealed record SumTerm(KroneckerFactors Factors, double Scale)
    {
        /// <summary>Rank of w2, at most the smaller side of the matrix.</summary>
        public long InnerRank => Factors.Core is not null ? Factors.W2A!.shape[0] : Factors.W2A?.shape[1] ?? Math.Min(Factors.K, Factors.N * Factors.Kernel.Product());
    }

    /// <summary>The adapters, read.</summary>
    private sealed record Sources(IReadOnlyList<SumLayer> Layers, AdapterContent Rest, LoKrConfig Start, AdapterLayout Layout, ScalarType DType, IReadOnlyList<string> Warnings)
    {
        public static Sources Read(IReadOnlyList<AdapterTerm> terms, AdapterSumOptions options)
        {
            ArgumentNullException.ThrowIfNull(terms);
            options.Fit.Check();
            TorchRuntime.EnsureLoaded();
            if (terms.Count == 0)
            {
                throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, "There is no adapter to join.", "Give at least one.");
            }

            if (terms.FirstOrDefault(static term => !double.IsFinite(term.Weight)) is AdapterTerm infinite)
            {
                throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"The weight of '{infinite.Path}' is {infinite.Weight}.", "Give a finite number.") { Target = infinite.Weight };
            }

            ModuleNameIndex? index = BaseModelNames.Find(null, options.BasePath);
            List<string> warnings = [];
            List<(AdapterContent Content, AdapterTerm Term)> contents = [];
            AdapterLayout? layout = null;
            foreach (AdapterTerm term in terms)
            {
                using AdapterFile file = AdapterFile.Open(term.Path);
                AdapterContent content = AdapterContentReader.Read(file, new() { Component = options.Component }, index);
                Require(content, term, terms.Count);
                layout ??= file.Layout;
                warnings.AddRange(file.Warnings);
                contents.Add((content, term));
            }

            AdapterContent first = contents[0].Content;
            SumLayer[] layers = [.. contents.SelectMany(static entry => entry.Content.Modules.Select(module => (Module: module, entry.Term)))
                .GroupBy(static entry => (entry.Module.Component, entry.Module.Name))
                .Select(group => Layer([.. group], options.Copies))];
            AdapterNorm[] norms = [.. contents.SelectMany(static entry => entry.Content.Norms.Select(norm => (Norm: norm, entry.Term)))
                .GroupBy(static entry => (entry.Norm.Component, entry.Norm.Name))
                .Select(static group => Sum([.. group]))];
            LoKrConfig start = first.Configs.Values.FirstOrDefault() ?? new LoKrConfig();
            ScalarType type = first.Modules.Count > 0 ? new KroneckerFactors(first.Modules[0].Factors.ToDictionary(StringComparer.Ordinal), first.Modules[0].Kernel ?? [], first.Modules[0].IsReversed).DType : ScalarType.Float32;
            return new(layers, first with { Norms = norms, Saved = contents.Count == 1 ? first.Saved : new Dictionary<string, Tensor>() }, start, layout!.Value, type, warnings);
        }

        private static void Require(AdapterContent content, AdapterTerm term, int count)
        {
            if (content.Modules.FirstOrDefault(static module => module.DoraAxis is not null) is AdapterModule decomposed)
            {
                throw Unsupported(decomposed.Name, $"the magnitudes of '{decomposed.Name}' in '{term.Path}' (DoRA) depend on the base weight");
            }

            if (count > 1 && content.Saved.Count > 0)
            {
                throw Unsupported(term.Path, $"'{term.Path}' holds whole modules ({string.Join(", ", content.Saved.Keys.Order(StringComparer.Ordinal).Take(5))}), of which there is no weighted sum without the base model");
            }

            if (count == 1 && term.Weight != 1 && content.Saved.Count > 0)
            {
                throw Unsupported(term.Path, $"'{term.Path}' holds whole modules, which a weight does not scale");
            }

            if (content.Modules.FirstOrDefault(static module => module.Factors.Any(static factor => NonFinite.Count(factor.Value) > 0)) is AdapterModule broken)
            {
                throw new LoKrException(ErrorIds.WeightNotFinite, LoKrErrorKind.InvalidData, $"The factors of '{broken.Name}' in '{term.Path}' have NaN or infinity.", "The adapter is broken; train it again.") { Target = broken.Name };
            }
        }

        private static SumLayer Layer(IReadOnlyList<(AdapterModule Module, AdapterTerm Term)> group, bool copies)
        {
            SumTerm[] terms = [.. group.Select(static entry => new SumTerm(
                new KroneckerFactors(entry.Module.Factors.ToDictionary(StringComparer.Ordinal), entry.Module.Kernel ?? [], entry.Module.IsReversed), entry.Module.Scale.Factor * entry.Term.Weight))];
            AdapterModule first = group[0].Module;
            long[] shape = [terms[0].Factors.OutFeatures, terms[0].Factors.InFeatures, .. terms[0].Factors.Kernel];
            for (int i = 1; i < terms.Length; i++)
            {
                long[] other = [terms[i].Factors.OutFeatures, terms[i].Factors.InFeatures, .. terms[i].Factors.Kernel];
                if (!other.AsSpan().SequenceEqual(shape))
                {
                    throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
                        $"'{first.Name}' is [{string.Join(", ", shape)}] in '{group[0].Term.Path}' and [{string.Join(", ", other)}] in '{group[i].Term.Path}'.", "The adapters are for different models.") { Target = first.Name };
                }
            }

            return new(first.Component, first.Name, shape, terms, copies) { IsGuessed = group.All(static entry => entry.Module.Kernel is null) };
        }

        private static AdapterNorm Sum(IReadOnlyList<(AdapterNorm Norm, AdapterTerm Term)> group)
        {
            Dictionary<string, Tensor> sums = new(StringComparer.Ordinal);
            foreach ((string suffix, Tensor tensor, double weight) in group.SelectMany(static entry => entry.Norm.Changes.Select(change => (change.Key, change.Value, entry.Term.Weight))))
            {
                Tensor scaled = tensor.to(float64) * weight;
                sums[suffix] = sums.TryGetValue(suffix, out Tensor? sum) ? sum + scaled : scaled;
            }

            AdapterNorm first = group[0].Norm;
            return first with { Tensors = sums.ToDictionary(static pair => pair.Key, pair => pair.Value.to(first.Tensors.Values.First().dtype), StringComparer.Ordinal) };
        }

        private static LoKrException Unsupported(string target, string why) =>
            new(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, $"The adapters cannot be joined: {why}.", "Merge them into the base model instead.") { Target = target };
    }
}

/// <summary>One adapter of a weighted sum.</summary>
/// <param name="Path">Safetensors file or adapter folder.</param>
/// <param name="Weight">Factor of its deltas; 1 as trained.</param>
public sealed record AdapterTerm(string Path, double Weight = 1);

/// <summary>Options of a weighted sum of adapters.</summary>
public sealed record AdapterSumOptions
{
    /// <summary>Limits and form.</summary>
    public AdapterFitOptions Fit { get; init; } = new();

    /// <summary>Folder or safetensors file of the base model, which resolves names with underscores and the kernels of flat convolutions; null for none.</summary>
    public string? BasePath { get; init; }

    /// <summary>Part of the pipeline to take where the files have several; null for all.</summary>
    public AdapterComponent? Component { get; init; }

    /// <summary>Whether factors of a single adapter whose shapes stay are copied bit by bit; otherwise they are brought to equal norms.</summary>
    public bool Copies { get; init; } = true;
}
