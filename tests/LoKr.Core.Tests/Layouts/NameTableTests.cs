using System.IO.Compression;
using System.Text.Json;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Compares the tables of names, name by name, with those of the programs themselves.</summary>
public sealed class NameTableTests
{
    private static readonly Dictionary<string, AdapterProgram> s_programs = new()
    {
        ["ai-toolkit"] = AdapterProgram.AiToolkit,
        ["musubi-tuner"] = AdapterProgram.Musubi,
        ["onetrainer"] = AdapterProgram.OneTrainer,
        ["sd-scripts"] = AdapterProgram.Kohya,
        ["simpletuner"] = AdapterProgram.SimpleTuner,
    };

    public static TheoryData<string> Denoisers => Tables("comfyui", static name => !name.Contains(".text", StringComparison.Ordinal));

    public static TheoryData<string> TextEncoders => Tables("comfyui", static name => name.Contains(".text", StringComparison.Ordinal));

    public static TheoryData<string> Published => Tables("diffusers", static _ => true);

    public static TheoryData<string> Written
    {
        get
        {
            TheoryData<string> rows = [];
            foreach (string program in s_programs.Keys)
            {
                foreach (TheoryDataRow<string> row in Tables("names/" + program, static _ => true, ""))
                {
                    rows.Add(row.Data.Length == 0 ? "" : $"{program}/{row.Data}");
                }
            }

            return rows;
        }
    }

    [Theory]
    [MemberData(nameof(Denoisers))]
    public void ComfyUI_reads_exactly_the_names_of_the_table(string model)
    {
        using JsonDocument table = Open("comfyui", model);
        ModelFamily family = Family(table);
        NameTranslator translator = new(family);
        ModelPart part = family.Parts.Single(static part => part.IsDenoiser);
        List<string> wrong = [];
        foreach (JsonElement row in Rows(table))
        {
            string tensor = row.GetProperty("name").GetString()!;
            long[] shape = [.. row.GetProperty("shape").EnumerateArray().Select(static size => size.GetInt64())];
            string module = ModelRecognizer.Module(tensor);
            if (ModelRecognizer.InCheckpoint(part, module).Select(static match => match.Place).FirstOrDefault() is not WeightPlace place)
            {
                wrong.Add($"{tensor} is not in the table");
                continue;
            }

            foreach (string file in Strings(row, "file"))
            {
                if (!ModelRecognizer.InCheckpoint(part, ModelRecognizer.Module(file)).Any(match => match.Place == place))
                {
                    wrong.Add($"{file} of files is not {tensor}");
                }
            }

            if (tensor.EndsWith(".bias", StringComparison.Ordinal) || place.Weight.IsParameter)
            {
                continue;
            }

            // Names of whole weights, those with swapped halves among them, then those of rows.
            HashSet<string> expected = [.. Strings(row, "adapter")];
            HashSet<string> swapped = [];
            foreach (JsonElement rows in Array(row, "parts"))
            {
                if (rows.TryGetProperty("swapped_halves", out JsonElement halves) && halves.GetBoolean())
                {
                    swapped.UnionWith(Strings(rows, "adapter"));
                    continue;
                }

                (long start, long length) = (rows.GetProperty("start").GetInt64(), rows.GetProperty("length").GetInt64());
                if (rows.TryGetProperty("beyond", out _) || start + length > shape[0])
                {
                    continue;
                }

                HashSet<string> names = [.. Strings(rows, "adapter")];
                foreach (string name in names)
                {
                    if (translator.Read(AdapterProgram.ComfyUI, name) is not NameMatch { Place.Rows: WeightRows found } match || match.Place.Weight != place.Weight
                        || found.Range(shape[0], shape[1]) != (start, length))
                    {
                        wrong.Add($"{name} is not rows {start} to {start + length} of {tensor}");
                    }
                }
            }

            foreach (string name in expected.Concat(swapped))
            {
                NameMatch? match = translator.Read(AdapterProgram.ComfyUI, name);
                bool swaps = match is { IsPublished: true, Place.Weight.IsSwapped: true } && shape[0] == 2 * shape[1];
                if (match?.Place != place || swaps != swapped.Contains(name))
                {
                    wrong.Add($"{name} is not {tensor}{(swapped.Contains(name) ? " with swapped halves" : "")}");
                }
            }

            HashSet<string> ours = [.. place.Spellings(AdapterProgram.ComfyUI)];
            wrong.AddRange(ours.Where(name => !expected.Contains(name) && !swapped.Contains(name)).Select(name => $"ComfyUI does not read {name} for {tensor}"));
            HashSet<string> parts = [.. Array(row, "parts").SelectMany(static rows => Strings(rows, "adapter"))];
            wrong.AddRange(place.Weight.Rows.SelectMany(rows => (place with { Rows = rows }).Spellings(AdapterProgram.ComfyUI)).Where(name => !parts.Contains(name)).Select(name => $"ComfyUI does not read {name} for rows of {tensor}"));
        }

        Assert.Empty(wrong);
    }

    [Theory]
    [MemberData(nameof(TextEncoders))]
    public void ComfyUI_reads_exactly_the_names_of_text_encoders(string model)
    {
        using JsonDocument table = Open("comfyui", model);
        using JsonDocument denoiser = Open("comfyui", model.Replace(".text", "", StringComparison.Ordinal));
        NameTranslator translator = new(Family(denoiser));
        List<string> wrong = [];
        foreach (JsonElement row in Rows(table))
        {
            string tensor = row.GetProperty("name").GetString()!;
            HashSet<string> expected = [.. Strings(row, "adapter")];
            if (tensor.EndsWith(".bias", StringComparison.Ordinal) || expected.Count == 0)
            {
                continue;
            }

            WeightPlace[] places = [.. expected.Select(name => translator.Read(AdapterProgram.ComfyUI, name)?.Place).OfType<WeightPlace>().Distinct()];
            if (places is not [WeightPlace place])
            {
                wrong.Add($"{tensor} has {places.Length} places for {string.Join(", ", expected)}");
                continue;
            }

            if (!expected.SetEquals(place.Spellings(AdapterProgram.ComfyUI)))
            {
                wrong.Add($"{tensor}: {string.Join(", ", expected)} but ours are {string.Join(", ", place.Spellings(AdapterProgram.ComfyUI))}");
            }

            // The place in a checkpoint that holds the whole pipeline.
            foreach (string file in Strings(row, "file"))
            {
                NameMatch[] matches = [.. ModelRecognizer.InCheckpoint(place.Part, ModelRecognizer.Module(file)).Where(match => match.Place.Weight == place.Weight && match.Place.Numbers == place.Numbers)];
                bool isRows = row.TryGetProperty("start", out JsonElement start);
                long[] shape = [.. row.GetProperty("shape").EnumerateArray().Select(static size => size.GetInt64())];
                if (matches.Length == 0 || isRows != (place.Rows is not null)
                    || (isRows && place.Rows!.Range(3 * shape[0], shape[1]) != (start.GetInt64(), row.GetProperty("length").GetInt64()))
                    || place.Weight.IsTransposed != (row.TryGetProperty("transposed", out JsonElement transposed) && transposed.GetBoolean()))
                {
                    wrong.Add($"{file} is not {tensor}");
                }
            }
        }

        Assert.Empty(wrong);
    }

    [Theory]
    [MemberData(nameof(Published))]
    public void Published_names_come_from_the_weights_and_rows_that_the_converter_takes(string model)
    {
        using JsonDocument table = Open("diffusers", model);
        ModelFamily family = Recognize(Rows(table).Select(static row => row.GetProperty("name").GetString()!), model);
        ModelPart part = family.Parts.Single(static part => part.IsDenoiser);
        List<string> wrong = [];
        foreach (JsonElement row in Rows(table))
        {
            string tensor = row.GetProperty("name").GetString()!;
            JsonElement[] pieces = [.. Array(row, "from")];
            string[] files = [.. pieces.Select(static piece => piece.GetProperty("name").GetString()!).Distinct()];
            if (tensor.EndsWith(".bias", StringComparison.Ordinal) || files.Length != 1 || pieces.Length > 2)
            {
                // Tables of modulation that a converter gathers from one vector cannot be adapted.
                continue;
            }

            NameMatch[] published = [.. ModelRecognizer.InCheckpoint(part, ModelRecognizer.Module(tensor)).Where(static match => match.Set == NameSets.Diffusers)];
            WeightPlace? file = ModelRecognizer.InCheckpoint(part, ModelRecognizer.Module(files[0])).Where(static match => match.Set is NameSets.File or NameSets.Original).Select(static match => match.Place).FirstOrDefault();
            if (file is null || published is not [NameMatch { Place: WeightPlace place }] || place.Weight != file.Weight || place.Numbers != file.Numbers)
            {
                wrong.Add($"{tensor} is not from {files[0]}");
            }
            else if (pieces.Length == 1 && pieces[0].TryGetProperty("start", out JsonElement start))
            {
                long[] shape = [.. row.GetProperty("shape").EnumerateArray().Select(static size => size.GetInt64())];
                if (place.Rows is not WeightRows rows || (rows.Length is not null && rows.Range(0, shape[1]) != (start.GetInt64(), pieces[0].GetProperty("length").GetInt64())))
                {
                    wrong.Add($"{tensor} is not from these rows of {files[0]}");
                }
            }
            else if (place.Rows is not null || place.Weight.IsSwapped != (pieces.Length == 2) && !(place.Weight.IsSwapped && Shape(row) is [long height, long width] && height != 2 * width))
            {
                wrong.Add($"{tensor} is not {files[0]}{(pieces.Length == 2 ? " with swapped halves" : "")}");
            }
        }

        Assert.Empty(wrong);
    }

    [Theory]
    [MemberData(nameof(Written))]
    public void Names_that_a_program_writes_mean_what_it_says(string file)
    {
        if (file.Length == 0)
        {
            Fixtures.Require("names");
        }

        string[] path = file.Split('/');
        using JsonDocument table = Open(path[0], path[1]);
        string[] names = [.. Rows(table).Select(static row => row.GetProperty("adapter").GetString()!)];
        RecognizedModel? model = ModelRecognizer.OfAdapter(names);
        Assert.NotNull(model);
        using JsonDocument comfy = Open("comfyui", table.RootElement.GetProperty("model").GetString()!);
        ModelFamily family = Family(comfy);
        Assert.Contains(family, model.Candidates);
        NameTranslator translator = new(family);
        List<string> wrong = [];
        foreach (JsonElement row in Rows(table))
        {
            string name = row.GetProperty("adapter").GetString()!;
            string[] modules = row.GetProperty("module").GetString()!.Split(" + ");
            NameMatch[] matches = [.. translator.Find(name).Where(match => Means(match.Place, modules))];
            if (matches.Length == 0)
            {
                wrong.Add($"{name} is not {string.Join(" + ", modules)}");
                continue;
            }

            if (row.GetProperty("comfyui").GetBoolean() != (translator.Read(AdapterProgram.ComfyUI, name) is not null))
            {
                wrong.Add($"ComfyUI and {name}: expected {row.GetProperty("comfyui").GetBoolean()}");
            }

            if (translator.Read(s_programs[path[0]], name) is null && row.GetProperty("comfyui").GetBoolean())
            {
                wrong.Add($"{path[0]} does not read {name}");
            }
        }

        Assert.Empty(wrong);
    }

    [Fact]
    public void Every_table_is_read_and_no_name_of_a_set_means_two_weights()
    {
        Assert.True(NameTables.All.Count >= 15);
        foreach (ModelFamily family in NameTables.All)
        {
            foreach (ModelPart part in family.Parts)
            {
                string[] twice = [.. part.Weights.SelectMany(static weight => weight.Names.All.Concat(weight.Rows.SelectMany(static rows => rows.Names.All)))
                    .Where(static name => name.Set is NameSets.File or NameSets.Diffusers)
                    .GroupBy(static name => (name.Set, name.Template.Text)).Where(static group => group.Count() > 1).Select(group => $"{family.Name}: {group.Key.Text}")];
                Assert.Empty(twice);
                Assert.All(part.Programs, static program => Assert.NotEmpty(program.Value));
            }
        }
    }

    private static bool Means(WeightPlace place, string[] modules) => modules.Length == 1
        ? place.AllNames().Contains(modules[0])
        : place.Rows is null && modules.All(module => place.Weight.Rows.Any(rows => (place with { Rows = rows }).AllNames().Contains(module)));

    private static ModelFamily Family(JsonDocument table)
    {
        string prefix = Strings(table.RootElement, "file_prefix").First();
        return Recognize(Rows(table).Select(row => prefix + row.GetProperty("name").GetString()!), table.RootElement.GetProperty("model").GetString()!);
    }

    private static ModelFamily Recognize(IEnumerable<string> tensors, string model)
    {
        RecognizedModel? recognized = ModelRecognizer.OfCheckpoint(tensors);
        Assert.True(recognized?.Family is not null, $"{model} is recognized as {recognized?.ToString() ?? "nothing"}.");
        return recognized!.Family!;
    }

    private static long[] Shape(JsonElement row) => [.. row.GetProperty("shape").EnumerateArray().Select(static size => size.GetInt64())];

    private static IEnumerable<JsonElement> Rows(JsonDocument table) => table.RootElement.GetProperty("rows").EnumerateArray();

    private static IEnumerable<JsonElement> Array(JsonElement row, string name) => row.TryGetProperty(name, out JsonElement array) ? array.EnumerateArray() : [];

    private static IEnumerable<string> Strings(JsonElement row, string name) => !row.TryGetProperty(name, out JsonElement value) ? []
        : value.ValueKind == JsonValueKind.Array ? value.EnumerateArray().Select(static item => item.GetString()!)
        : [value.GetString()!];

    private static JsonDocument Open(string program, string model)
    {
        string path = model.Length == 0 ? Fixtures.Require("names", program) : Fixtures.Require("names", program, model + ".json.gz");
        using FileStream file = File.OpenRead(path);
        using GZipStream text = new(file, CompressionMode.Decompress);
        return JsonDocument.Parse(text);
    }

    private static TheoryData<string> Tables(string program, Func<string, bool> filter, string prefix = "names/")
    {
        TheoryData<string> rows = [];
        string? folder = Fixtures.Root is null ? null : Path.Combine(Fixtures.Root, prefix + program);
        string[] files = folder is not null && Directory.Exists(folder) ? Directory.GetFiles(folder, "*.json.gz") : [];
        foreach (string name in files.Select(static file => Path.GetFileName(file)[..^".json.gz".Length]).Where(filter).Order(StringComparer.Ordinal))
        {
            rows.Add(name);
        }

        if (rows.Count == 0)
        {
            rows.Add("");
        }

        return rows;
    }
}
