using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Runspaces;
using System.Xml.Linq;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Formatting;
using LoKr.PowerShell.Tests.Support;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>Every type that a cmdlet writes has views, also after it came back from a job.</summary>
public sealed class ViewTests : ModuleTest
{
    private static readonly Dictionary<string, XElement[]> s_views = XDocument.Load(Beside("LoKr.Format.ps1xml")).Descendants("View")
        .SelectMany(view => view.Element("ViewSelectedBy")!.Elements("TypeName").Select(type => (Type: type.Value, View: view)))
        .GroupBy(entry => entry.Type, entry => entry.View)
        .ToDictionary(group => group.Key, group => group.ToArray());

    public static TheoryData<string> OutputTypes() => [.. typeof(LoKrCommand).Assembly.GetTypes()
        .SelectMany(type => type.GetCustomAttributes(typeof(OutputTypeAttribute), false).Cast<OutputTypeAttribute>())
        .SelectMany(attribute => attribute.Type)
        .Select(type => type.Type)
        .Where(type => type.Namespace!.StartsWith("LoKr.", StringComparison.Ordinal))
        .Select(type => type.FullName!)
        .Concat(["LoKr.Core.Model.LoKrAdapter", "LoKr.Core.Model.ParameterCount", "LoKr.Core.Model.LoKrMergeResult", "LoKr.Core.Layouts.LoKrAdapterFinding", "LoKr.Core.Model.LoKrTrainingResult"])
        .Distinct()];

    [Theory]
    [MemberData(nameof(OutputTypes))]
    public void Each_output_type_has_a_table_and_a_list_for_itself_and_its_deserialized_twin(string type)
    {
        foreach (string name in (string[])[type, $"Deserialized.{type}"])
        {
            Assert.Single(s_views[name], view => view.Element("TableControl") is not null);
            Assert.Single(s_views[name], view => view.Element("ListControl") is not null);
        }

        Type clr = typeof(LoKrModel).Assembly.GetType(type) ?? typeof(StableDiffusionPipeline).Assembly.GetType(type, throwOnError: true)!;
        foreach (string property in s_views[type].Descendants("PropertyName").Select(element => element.Value))
        {
            Assert.True(clr.GetProperty(property) is not null || (type.EndsWith("LoKrModel", StringComparison.Ordinal) && property.EndsWith("ParameterCount", StringComparison.Ordinal)),
                $"{type} has no property {property}.");
        }
    }

    [Theory]
    [MemberData(nameof(OutputTypes))]
    public void Each_output_type_has_a_default_display_property_set(string type)
    {
        XElement[] types = [.. XDocument.Load(Beside("LoKr.Types.ps1xml")).Descendants("Type")];
        foreach (string name in (string[])[type, $"Deserialized.{type}"])
        {
            XElement found = Assert.Single(types, element => element.Element("Name")!.Value == name);
            Assert.Single(found.Descendants("PropertySet"), set => set.Element("Name")!.Value == "DefaultDisplayPropertySet");
        }
    }

    [Fact]
    public void The_views_show_a_trained_model_without_errors()
    {
        ImportAdapted();
        Host.Output("$null = $model | Start-LoKrTraining -Data $train -ValidationData $eval -MaxSteps 3; $null = $model | Merge-LoKrAdapter");
        foreach ((string script, string shows) in new[]
        {
            ("$model", "BertForSequenceClassification"), ("$model.Adapters", "default"), ("$model.Adapters[0].Config", "query, value"),
            ("$model | Get-LoKrModule -Adapted", "16×16"), ("$model.LastTraining", "AccuracyAfter"), ("$model.LastTraining.History", "GradNorm"),
            ("$model.LastMerge", "default"),
            ("$model | Get-LoKrAdapter", "default"), ("$model | Get-LoKrAdapter -ByLayer", "lokr.Linear"),
            ("$model | Get-LoKrAdapter -Summary", "BertForSequenceClassification"), ("$model.CountParameters()", "Trainable"), ("Measure-LoKrModel $eval -Model $model", "Accuracy"),
            ("'vpn' | Invoke-LoKrModel $model", "vpn"), ("Get-LoKrRuntime", "libtorch"),
        })
        {
            string text = Render(script);
            Assert.Contains(shows, text, StringComparison.OrdinalIgnoreCase);
            Assert.DoesNotContain("#ERR", text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_plan_of_a_training_names_steps_parameters_and_memory()
    {
        LoKrModel model = ImportAdapted();
        string text = Render("$model | Start-LoKrTraining $train -Epochs 5 -BatchSize 8 -WarmupRatio 0.1 -WhatIf");
        Assert.Contains("60 steps (12 an epoch, 6 warm-up) on 96 rows", text, StringComparison.Ordinal);
        Assert.Contains($"{model.Adapters[0].ParameterCount} parameters", text, StringComparison.Ordinal);
        Assert.Contains("MiB", text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_model_survives_serialization_as_plain_figures()
    {
        ImportAdapted();
        PSObject copy = Assert.Single(Host.Run("[System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($model))").Output);
        Assert.Equal("Deserialized.LoKr.Core.Model.LoKrModel", copy.TypeNames[0]);
        Assert.Equal("BertForSequenceClassification", copy.Properties["Name"].Value);
        Assert.Null(copy.Properties["Tokenizer"]);
        Assert.True(Convert.ToInt64(copy.Properties["ParameterCount"].Value, null) > 0);
        Assert.Equal("default", ViewText.List(Assert.IsAssignableFrom<IEnumerable>(((PSObject)copy.Properties["Adapters"].Value).BaseObject)));
    }

    [Fact]
    public void Cells_are_written_for_people()
    {
        Assert.Equal("384×1536", ViewText.Shape(new long[] { 384, 1536 }));
        Assert.Equal("", ViewText.Shape(null));
        Assert.Equal("a, b", ViewText.List(new[] { "a", "b" }));
        Assert.Equal("abc", ViewText.List("abc"));
        Assert.Equal("", ViewText.Number(null, 2));
        Assert.Equal("a, b (merged), c (off)", ViewText.Adapters(new[] { "a", "b", "c" }, new[] { "a", "b" }, new[] { "b" }));
        Assert.Equal("x = 2.5, a = 4", ViewText.Pairs(new[] { KeyValuePair.Create("x", 2.5), KeyValuePair.Create("a", 4.0) }));
        Assert.Equal("default = Irregular", ViewText.Pairs(new Dictionary<string, TriState> { ["default"] = TriState.Irregular }));
        Assert.Equal("b 0.9000, a 0.1000", ViewText.Scores(new Hashtable { ["a"] = 0.1, ["b"] = 0.9 }));
        Assert.Equal("0:01:05.3", ViewText.Duration(TimeSpan.FromSeconds(65.34)));
        Assert.Equal("", ViewText.Duration(null));
    }

    private static string Beside(string file) => Path.Combine(Path.GetDirectoryName(ModuleHost.Manifest)!, file);

    private string Render(string script)
    {
        RecordingHost host = new();
        InitialSessionState state = InitialSessionState.CreateDefault2();
        state.ImportPSModule([ModuleHost.Manifest]);
        using Runspace runspace = RunspaceFactory.CreateRunspace(host, state);
        runspace.Open();
        foreach (string variable in (string[])["model", "train", "eval"])
        {
            runspace.SessionStateProxy.SetVariable(variable, Host.Get(variable));
        }

        using System.Management.Automation.PowerShell shell = System.Management.Automation.PowerShell.Create(runspace);
        shell.AddScript(script).AddCommand("Out-Default").Invoke();
        Assert.Empty(shell.Streams.Error);
        return host.Text;
    }
}
