using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Nn;

namespace LoKr.Models.Loading;

/// <summary>
/// The files with which sentence-transformers says, beside a model, how its texts become vectors: <c>modules.json</c>, the pooling's <c>config.json</c>,
/// <c>sentence_bert_config.json</c> and <c>config_sentence_transformers.json</c>. Read in the spelling of every release, written in the one that
/// every release reads. What is not built is refused by file, key and value.
/// </summary>
internal static class SentenceFolder
{
    private const string ModulesFile = "modules.json";
    private const string TransformerFile = "sentence_bert_config.json";
    private const string MainFile = "config_sentence_transformers.json";
    private const string PoolingFolder = "1_Pooling";
    private const string KindKey = "model_type";
    private const string Kind = "SentenceTransformer";
    private const string LengthKey = "max_seq_length";
    private const string LowerCaseKey = "do_lower_case";
    private const string PromptKey = "include_prompt";
    private const string ModeKey = "pooling_mode";

    private static readonly JsonErrors s_errors = new(ErrorIds.ModelConfigInvalid, ErrorIds.ModelConfigUnsupported);

    // Older releases named the file after the family.
    private static readonly string[] s_transformerFiles =
    [
        TransformerFile, "sentence_roberta_config.json", "sentence_distilbert_config.json", "sentence_camembert_config.json", "sentence_albert_config.json",
        "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json",
    ];

    // Flags of older releases, in the order in which their vectors follow each other; and the names of newer ones.
    private static readonly (SentencePooling Kind, string Flag, string Name)[] s_modes =
    [
        (SentencePooling.Cls, "pooling_mode_cls_token", "cls"),
        (SentencePooling.Max, "pooling_mode_max_tokens", "max"),
        (SentencePooling.Mean, "pooling_mode_mean_tokens", "mean"),
        (SentencePooling.MeanSqrtLen, "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        (SentencePooling.WeightedMean, "pooling_mode_weightedmean_tokens", "weightedmean"),
        (SentencePooling.LastToken, "pooling_mode_lasttoken", "lasttoken"),
    ];

    private static readonly (string Name, SimilarityFunction Value)[] s_similarities =
    [
        ("cosine", SimilarityFunction.Cosine), ("dot", SimilarityFunction.Dot), ("euclidean", SimilarityFunction.Euclidean), ("manhattan", SimilarityFunction.Manhattan),
    ];

    /// <summary>Reads the files of a folder.</summary>
    /// <param name="folder">The folder.</param>
    /// <returns>The settings; null for a folder without them, and for one of a reranker, which pools nothing.</returns>
    /// <exception cref="LoKrException"><c>LoKr.ModelConfigInvalid</c>, <c>LoKr.ModelConfigUnsupported</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static SentenceSettings? Find(string folder)
    {
        string modules = Path.Combine(folder, ModulesFile);
        if (!File.Exists(modules))
        {
            return null;
        }

        // The file is a list, which has a place in the object that errors name.
        byte[] list = FileSystem.ReadBytes(ModelLinks.Check(folder, modules));
        JsonFields file = JsonFields.Parse([.. "{\"modules\":"u8, .. list.AsSpan().StartsWith("\uFEFF"u8) ? list.AsSpan(3) : list, .. "}"u8], modules, s_errors);
        (string Kind, string Path)[] steps = [.. file.GetObjects("modules").Select(static module => (KindOf(module), module.GetString("path", "")))];
        if (!steps.Any(static step => step.Kind == "Pooling"))
        {
            return null;
        }

        string[] kinds = [.. steps.Select(static step => step.Kind)];
        if (kinds is not (["Transformer", "Pooling"] or ["Transformer", "Pooling", "Normalize"]))
        {
            throw Unsupported(modules, $"the modules are {string.Join(", ", kinds)}; supported are Transformer, Pooling and, behind them, Normalize");
        }

        if (steps[0].Path.Length > 0)
        {
            throw Unsupported(modules, $"the model is in '{steps[0].Path}', not beside the file");
        }

        if (kinds.Length == 3)
        {
            CheckNormalize(folder, steps[2].Path);
        }

        SentenceSettings settings = ReadMain(folder) with { Normalize = kinds.Length == 3 };
        settings = ReadTransformer(folder, settings);
        return ReadPooling(folder, steps[1].Path, settings);
    }

    /// <summary>Writes the files into the folder of a model.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="settings">What they say.</param>
    /// <param name="tokenDimension">Numbers in the vector of a token.</param>
    /// <param name="longest">Longest sequence of model and tokenizer, for settings that name none.</param>
    public static void Write(string folder, SentenceSettings settings, int tokenDimension, int longest)
    {
        JsonArray modules = [Module(0, "", "Transformer"), Module(1, PoolingFolder, "Pooling"), .. settings.Normalize ? new[] { Module(2, "2_Normalize", "Normalize") } : []];
        WriteJson(folder, ModulesFile, modules);
        WriteJson(folder, TransformerFile, new JsonObject { [LengthKey] = settings.MaxSequenceLength ?? longest, [LowerCaseKey] = settings.LowerCase });
        JsonObject prompts = [];
        foreach ((string name, string prompt) in settings.Prompts)
        {
            prompts[name] = prompt;
        }

        WriteJson(folder, MainFile, new JsonObject
        {
            [KindKey] = Kind,
            ["prompts"] = prompts,
            ["default_prompt_name"] = settings.DefaultPromptName,
            ["similarity_fn_name"] = s_similarities.First(pair => pair.Value == settings.Similarity).Name,
        });
        FileSystem.CreateFolder(Path.Combine(folder, PoolingFolder));
        WriteJson(folder, Path.Combine(PoolingFolder, ModelConfig.FileName), Pooling(settings, tokenDimension));
    }

    /// <summary>A kind of pooling as newer releases name it.</summary>
    public static string NameOf(SentencePooling kind) => s_modes.First(mode => mode.Kind == kind).Name;

    private static JsonObject Module(int index, string path, string kind) => new()
    {
        ["idx"] = index,
        ["name"] = FormattableString.Invariant($"{index}"),
        ["path"] = path,
        ["type"] = "sentence_transformers.models." + kind,
    };

    // Flags know one order only; another is a list, which older releases do not read.
    private static JsonObject Pooling(SentenceSettings settings, int tokenDimension)
    {
        SentencePooling[] ordered = [.. s_modes.Select(static mode => mode.Kind).Where(settings.Pooling.Contains)];
        JsonObject pooling = new() { [ordered.SequenceEqual(settings.Pooling) ? "word_embedding_dimension" : "embedding_dimension"] = tokenDimension };
        if (ordered.SequenceEqual(settings.Pooling))
        {
            foreach ((SentencePooling kind, string flag, _) in s_modes)
            {
                pooling[flag] = settings.Pooling.Contains(kind);
            }
        }
        else
        {
            pooling[ModeKey] = new JsonArray([.. settings.Pooling.Select(static kind => (JsonNode)NameOf(kind))]);
        }

        pooling[PromptKey] = settings.IncludePrompt;
        return pooling;
    }

    private static void WriteJson(string folder, string name, JsonNode json) => AtomicFile.WriteText(Path.Combine(folder, name), JsonRecords.ToLines(json) + "\n");

    private static string KindOf(JsonFields module)
    {
        string type = module.GetString("type");
        return type[(type.LastIndexOf('.') + 1)..];
    }

    private static SentenceSettings ReadMain(string folder)
    {
        if (Open(folder, MainFile) is not JsonFields file)
        {
            return new();
        }

        if (file.FindString(KindKey) is not (null or Kind) and string other)
        {
            throw file.Unsupported(KindKey, $"is '{other}'; only '{Kind}' turns a text into one vector");
        }

        JsonFields prompts = file.GetObjectOrEmpty("prompts");
        SentenceSettings settings = new()
        {
            Prompts = prompts.Members.ToDictionary(static pair => pair.Key, pair => prompts.GetString(pair.Key)),
            DefaultPromptName = file.FindString("default_prompt_name"),
            Similarity = file.GetChoice("similarity_fn_name", SimilarityFunction.Cosine, s_similarities),
        };
        return settings.DefaultPromptName is null || settings.Prompts.ContainsKey(settings.DefaultPromptName)
            ? settings
            : throw file.Invalid("default_prompt_name", $"is '{settings.DefaultPromptName}', which is not one of the prompts");
    }

    private static SentenceSettings ReadTransformer(string folder, SentenceSettings settings)
    {
        if (s_transformerFiles.Select(name => Open(folder, name)).FirstOrDefault(static found => found is not null) is not JsonFields file)
        {
            return settings;
        }

        file.AllowOnly(LengthKey, LowerCaseKey, "model_args", "tokenizer_args", "config_args", "processing_kwargs", "transformer_task", "modality_config", "module_output_name");
        foreach (string arguments in new[] { "model_args", "tokenizer_args", "config_args", "processing_kwargs" })
        {
            if (file.GetObjectOrEmpty(arguments) is { Count: > 0 } given)
            {
                throw file.Unsupported(arguments, $"names {string.Join(", ", given.Members.Select(static member => member.Key))}; options of loading are not supported");
            }
        }

        _ = file.GetChoice("transformer_task", 0, ("feature-extraction", 0));
        _ = file.GetChoice("module_output_name", 0, ("token_embeddings", 0));
        if (file.FindObject("modality_config") is JsonFields kinds)
        {
            JsonFields text = kinds.AllowOnly("text").GetObject("text").AllowOnly("method", "method_output_name");
            _ = text.GetChoice("method", 0, ("forward", 0));
            _ = text.GetChoice("method_output_name", 0, ("last_hidden_state", 0));
        }

        return settings with { MaxSequenceLength = file.Has(LengthKey) ? file.GetSize(LengthKey) : null, LowerCase = file.GetBool(LowerCaseKey, false) };
    }

    private static SentenceSettings ReadPooling(string folder, string path, SentenceSettings settings)
    {
        string name = Path.Combine(path, ModelConfig.FileName);
        JsonFields file = Open(folder, name) ?? throw new LoKrException(ErrorIds.ModelConfigNotFound, LoKrErrorKind.NotFound,
            $"'{folder}' has no '{name}', which {ModulesFile} names.", "The download is incomplete; get the missing file.") { Target = folder };
        file.AllowOnly(["word_embedding_dimension", "embedding_dimension", ModeKey, PromptKey, .. s_modes.Select(static mode => mode.Flag)]);
        SentencePooling[] kinds = file.Has(ModeKey)
            ? [.. Modes(file).Select(mode => s_modes.FirstOrDefault(known => known.Name == mode) is { Name: not null } found ? found.Kind
                : throw file.Unsupported(ModeKey, $"is '{mode}'; supported are {string.Join(", ", s_modes.Select(static known => known.Name))}"))]
            : [.. s_modes.Where(mode => file.GetBool(mode.Flag, mode.Kind == SentencePooling.Mean)).Select(static mode => mode.Kind)];
        return kinds.Length > 0 && kinds.Distinct().Count() == kinds.Length
            ? settings with { Pooling = kinds, IncludePrompt = file.GetBool(PromptKey, true) }
            : throw file.Invalid(ModeKey, kinds.Length == 0 ? "names no kind of pooling" : "names a kind of pooling twice");
    }

    // Vectors of tokens can be scaled too, which is something else.
    private static void CheckNormalize(string folder, string path)
    {
        if (Open(folder, Path.Combine(path, ModelConfig.FileName)) is JsonFields file)
        {
            file.AllowOnly("module_input_name", "module_output_name");
            _ = file.GetChoice("module_input_name", 0, ("sentence_embedding", 0));
            _ = file.GetChoice("module_output_name", 0, ("sentence_embedding", 0));
        }
    }

    private static IEnumerable<string> Modes(JsonFields file) => file.Get(ModeKey).ValueKind == JsonValueKind.Array ? file.GetStrings(ModeKey) : [file.GetString(ModeKey)];

    private static JsonFields? Open(string folder, string name)
    {
        string path = Path.Combine(folder, name);
        return File.Exists(path) ? JsonFields.Read(ModelLinks.Check(folder, path), s_errors) : null;
    }

    private static LoKrException Unsupported(string file, string problem) => new(ErrorIds.ModelConfigUnsupported, LoKrErrorKind.NotSupported,
        $"'{file}' is not supported: {problem}.", "Use a sentence encoder whose vectors are pooled from the tokens of the model.") { Target = file };
}
