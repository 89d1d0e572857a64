using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.PowerShell.Tests.Help;
using LoKr.PowerShell.Tests.Support;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>
/// Every cmdlet has a page with examples that run, and help that is made from it. <c>LOKR_UPDATE_HELP=1</c> writes the generated parts:
/// the ends of docs/en-US/*.md and src/LoKr.PowerShell/en-US/LoKr.PowerShell.dll-Help.xml.
/// </summary>
public sealed class HelpTests : ModuleTest
{
    private static readonly string s_pages = Path.Combine(Fixtures.Repository!, "docs", "en-US");
    private static readonly string s_maml = Path.Combine(Fixtures.Repository!, "src", "LoKr.PowerShell", "en-US", "LoKr.PowerShell.dll-Help.xml");

    public static TheoryData<string> Commands() => [.. Pages().Keys];

    public static TheoryData<string, int> Examples()
    {
        TheoryData<string, int> examples = [];
        foreach ((string name, HelpPage page) in Pages())
        {
            for (int i = 0; i < page.Examples.Length; i++)
            {
                examples.Add(name, i);
            }
        }

        return examples;
    }

    [Fact]
    public void Pages_and_help_file_are_up_to_date()
    {
        bool update = Environment.GetEnvironmentVariable("LOKR_UPDATE_HELP") == "1";
        CmdletInfo[] cmdlets = [.. Host.Output("Get-Command -Module LoKr").Cast<CmdletInfo>().OrderBy(cmdlet => cmdlet.Name, StringComparer.Ordinal)];
        HelpBuilder builder = new(new ParameterDocs(Path.Combine(Path.GetDirectoryName(ModuleHost.Manifest)!, "LoKr.PowerShell.xml")));
        Dictionary<string, HelpPage> pages = Pages();
        Assert.Equal(cmdlets.Select(cmdlet => cmdlet.Name), pages.Keys.Order(StringComparer.Ordinal));
        foreach (CmdletInfo cmdlet in cmdlets)
        {
            string file = Path.Combine(s_pages, $"{cmdlet.Name}.md");
            string text = File.ReadAllText(file);
            int start = text.IndexOf(HelpPage.Generated, StringComparison.Ordinal);
            Check(file, text, (start < 0 ? text.TrimEnd() + "\n\n" : text[..start]) + builder.Tail(cmdlet), update);
        }

        Check(s_maml, File.Exists(s_maml) ? File.ReadAllText(s_maml) : "", builder.Maml(cmdlets.Select(cmdlet => (pages[cmdlet.Name], cmdlet))), update);
    }

    [Theory]
    [MemberData(nameof(Commands))]
    public void Get_help_knows_synopsis_examples_and_every_parameter(string name)
    {
        Host.Set("name", name);
        PSObject help = Assert.Single(Host.Run("Get-Help $name -Full").Output);
        Assert.Equal(Pages()[name].Synopsis, ((string)Text(help, "Synopsis")).Trim());
        Assert.NotEmpty(Host.Output("(Get-Help $name).description.Text"));
        Assert.True(Host.Output("(Get-Help $name).examples.example").Count >= 3);
        string[] described = [.. Host.Output("(Get-Help $name).parameters.parameter | Where-Object { $_.description.Text } | ForEach-Object name").Cast<string>()];
        CmdletInfo cmdlet = Host.One<CmdletInfo>("Get-Command $name");
        Assert.Empty(ParameterDocs.Of(cmdlet).Select(parameter => parameter.Name).Except(described));
        Assert.NotEmpty(Host.Output("Get-Help $name -Examples"));
    }

    [Fact]
    public void There_is_a_topic_about_the_module() =>
        Assert.Contains("Kronecker", Host.Output("Get-Help about_LoKr")[0].ToString(), StringComparison.Ordinal);

    [Theory]
    [MemberData(nameof(Examples))]
    public void Examples_run(string name, int example)
    {
        TinyModel.WriteBert(Folder["minilm"]);
        TinyModel.WriteLlama(Folder["llama"]);
        TinyPipeline.Write(Folder["stable-diffusion"]);
        TinyImages.Write(Folder["photos"], 4);
        TinyModel.WriteTickets(Folder["tickets.train.jsonl"], 30);
        TinyModel.WriteTickets(Folder["tickets.eval.jsonl"], 12, seed: 2);
        TinyModel.WriteCompletions(Folder["pairs.jsonl"], 8);
        Host.Runspace.SessionStateProxy.Path.SetLocation(Folder.Path);
        Host.Output("""
            $model = Import-LoKrModel ./minilm -Label network, access, billing 3>$null
            $null = New-LoKrConfig -TargetModules query, value -ModulesToSave classifier | Add-LoKrAdapter $model | Export-LoKrAdapter ./adapter
            $model.Dispose()
            $model = $null
            """);
        string code = Pages()[name].Examples[example].Code;
        Host.Output($"$ErrorActionPreference = 'Stop'\n{code}\nif ($model) {{ $model.Dispose() }}");
    }

    private static Dictionary<string, HelpPage> Pages() => Directory.EnumerateFiles(s_pages, "*-*.md")
        .ToDictionary(file => Path.GetFileNameWithoutExtension(file), file => HelpPage.Parse(File.ReadAllText(file)));

    private static object Text(PSObject item, string property) => item.Properties[property].Value;

    private static void Check(string file, string actual, string expected, bool update)
    {
        if (update && actual != expected)
        {
            File.WriteAllText(file, expected);
            return;
        }

        Assert.True(actual == expected, $"{file} is not what the pages and the assembly say. Run this test with LOKR_UPDATE_HELP=1 and commit the result.");
    }
}
