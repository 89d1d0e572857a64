using System.Management.Automation;
using System.Text;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.PowerShell.Tests.Support;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>Bad input: each case has its own error id, says what to do, and leaves nothing behind.</summary>
public sealed class ErrorTests : ModuleTest
{
    [Fact]
    public void A_missing_folder_is_named()
    {
        Assert.Contains("nowhere", Host.Error("LoKr.PathNotFound", "Import-LoKrModel \"$root/nowhere\"").Exception.Message, StringComparison.Ordinal);
        Host.Error("LoKr.PathNotFound", "Import-LoKrModel -LiteralPath \"$root/nowhere\"");
        Host.Error("LoKr.PathNotFound", "Import-LoKrModel \"$root/no*\"");
        Host.Error("LoKr.PathNotFound", "Get-LoKrConfig nodrive:/x");
    }

    [Fact]
    public void A_path_that_is_no_file_is_refused() => Host.Error("LoKr.PathNotFileSystem", "Import-LoKrModel Variable:PWD");

    [Fact]
    public void One_bad_folder_of_several_does_not_stop_the_others()
    {
        Host.Set("path", TinyModel.WriteBert(Folder["bert"]));
        ScriptResult result = Host.Run("\"$root/nowhere\", $path | Import-LoKrModel -Label a, b");
        Assert.Equal("LoKr.PathNotFound", Assert.Single(result.Errors).FullyQualifiedErrorId.Split(',')[0]);
        Assert.IsType<LoKrModel>(Assert.Single(result.Output).BaseObject).Dispose();
    }

    [Fact]
    public void Error_action_stop_turns_an_error_into_an_exception()
    {
        ScriptResult result = Host.Run("try { Import-LoKrModel \"$root/nowhere\" -ErrorAction Stop; 'not here' } catch { $_.FullyQualifiedErrorId }");
        Assert.StartsWith("LoKr.PathNotFound", Assert.Single(result.Output).ToString(), StringComparison.Ordinal);
        Assert.Empty(Host.Run("Import-LoKrModel \"$root/nowhere\" -ErrorAction Ignore").Errors);
    }

    [Fact]
    public void Every_error_carries_advice_and_its_target()
    {
        ErrorRecord error = Host.Error("LoKr.PathNotFound", "Import-LoKrModel \"$root/nowhere\"");
        Assert.False(string.IsNullOrEmpty(error.ErrorDetails.RecommendedAction));

        // A host that shows the recommendation shows it once; a script that logs the exception's message has it too.
        Assert.DoesNotContain(error.ErrorDetails.RecommendedAction, error.ErrorDetails.Message, StringComparison.Ordinal);
        Assert.EndsWith(error.ErrorDetails.RecommendedAction, error.Exception.Message, StringComparison.Ordinal);
        Assert.Equal(ErrorCategory.ObjectNotFound, error.CategoryInfo.Category);
        Assert.NotNull(error.TargetObject);
    }

    [Fact]
    public void Truncated_weights_are_refused()
    {
        string weights = Path.Combine(WriteBert(), "model.safetensors");
        using (FileStream file = new(weights, FileMode.Open))
        {
            file.SetLength(file.Length - 16);
        }

        Host.Error("LoKr.SafetensorsTruncated", "Import-LoKrModel $path -Label a, b");
    }

    [Fact]
    public void Overlapping_tensors_are_refused()
    {
        WriteSafetensors("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}""", 12);
        Host.Error("LoKr.SafetensorsOverlap", "Import-LoKrModel $path -Label a, b");
    }

    [Fact]
    public void Weights_of_the_wrong_type_are_refused()
    {
        string header = Header(Path.Combine(WriteBert(), "model.safetensors"), out byte[] data);
        WriteSafetensors(header.Replace("\"F32\"", "\"I32\"", StringComparison.Ordinal), data.Length);
        Host.Error("LoKr.TensorDTypeMismatch", "Import-LoKrModel $path -Label a, b");
    }

    [Fact]
    public void A_configuration_without_model_type_is_refused()
    {
        File.WriteAllText(Path.Combine(WriteBert(), "config.json"), """{"hidden_size": 16}""");
        Host.Error("LoKr.ModelTypeMissing", "Import-LoKrModel $path -Label a, b");
    }

    [Fact]
    public void An_unknown_target_module_is_named_and_the_model_stays_as_it_was()
    {
        LoKrModel model = ImportBert();
        ErrorRecord error = Host.Error("LoKr.TargetModuleNotFound", "New-LoKrConfig -TargetModules q_proj | Add-LoKrAdapter $model");
        Assert.Contains("q_proj", error.Exception.Message, StringComparison.Ordinal);
        Assert.Empty(model.Adapters);
    }

    [Theory]
    [InlineData("-R 0", "LoKr.RankInvalid")]
    [InlineData("-R -3", "LoKr.RankInvalid")]
    [InlineData("-Alpha NaN", "LoKr.AlphaInvalid")]
    [InlineData("-RankDropout 1", "LoKr.DropoutInvalid")]
    [InlineData("-DecomposeFactor 0", "LoKr.DecomposeFactorInvalid")]
    [InlineData("-LayersPattern layer", "LoKr.LayersPatternInvalid")]
    [InlineData("-TargetModulePattern '('", "LoKr.PatternInvalid")]
    [InlineData("-TargetModules a -TargetModulePattern b", "LoKr.InvalidArgument")]
    [InlineData("-TargetModules '.*query'", "LoKr.InvalidArgument")]
    [InlineData("-RankPattern @{ a = 'x' }", "LoKr.InvalidArgument")]
    [InlineData("-RankPattern @{ a = 0 }", "LoKr.RankInvalid")]
    [InlineData("-WeightDecompose -RankDropout 0.1", "LoKr.OptionNotSupported")]
    public void Configuration_values_that_cannot_be_are_refused(string arguments, string id) => Host.Error(id, $"New-LoKrConfig {arguments}");

    [Fact]
    public void A_label_that_the_model_does_not_know_is_named()
    {
        ImportAdapted();
        Assert.Contains("weather", Host.Error("LoKr.LabelUnknown", "$model | Start-LoKrTraining -Data @{ text = 'vpn'; label = 'weather' }").Exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Empty_data_are_refused()
    {
        ImportAdapted();
        File.WriteAllText(Folder["empty.jsonl"], "\n\n");
        Host.Error("LoKr.DataEmpty", "$model | Start-LoKrTraining -Data \"$root/empty.jsonl\"");
        Host.Error("LoKr.DataEmpty", "$model | Measure-LoKrModel \"$root/empty.jsonl\"");
        Host.Error("LoKr.DataEmpty", "$model | Start-LoKrTraining -Data @()");
    }

    [Fact]
    public void A_line_that_is_not_json_is_named_by_its_number()
    {
        LoKrModel model = ImportAdapted();
        File.WriteAllLines(Folder["bad.jsonl"], ["""{"text": "vpn", "label": "network"}""", "", "text, label"]);
        Assert.Contains("bad.jsonl:3", Host.Error("LoKr.DataLineInvalid", "$model | Start-LoKrTraining -Data \"$root/bad.jsonl\"").Exception.Message, StringComparison.Ordinal);
        Assert.Null(model.LastTraining);
    }

    [Fact]
    public void An_existing_destination_is_kept_without_force()
    {
        ImportAdapted();
        Host.Output("$model | Export-LoKrAdapter \"$root/adapter\" | Merge-LoKrAdapter | Export-LoKrModel \"$root/merged\"");
        Dictionary<string, byte[]> before = Snapshot();
        Host.Error("LoKr.DestinationExists", "$model | Export-LoKrModel \"$root/merged\"");
        Host.Error("LoKr.DestinationExists", "$model | Export-LoKrAdapter \"$root/adapter\"");
        Assert.Equal(before, Snapshot());
        Host.Output("$model | Export-LoKrAdapter \"$root/adapter\" -Force | Export-LoKrModel \"$root/merged\" -Force");
    }

    [Fact]
    public void An_unmerged_model_is_not_exported_and_leaves_no_folder()
    {
        ImportAdapted();
        Host.Error("LoKr.ExportUnmerged", "$model | Export-LoKrModel \"$root/merged\"");
        Assert.DoesNotContain(Directory.EnumerateFileSystemEntries(Folder.Path), path => path.Contains("merged", StringComparison.Ordinal));
    }

    [Fact]
    public void A_missing_gpu_is_an_error_and_no_silent_fallback()
    {
        WriteBert();
        Host.Error("LoKr.DeviceNotFound", "Import-LoKrModel $path -Label a, b -Device cuda:31");
        Host.Error("LoKr.DeviceInvalid", "Import-LoKrModel $path -Label a, b -Device tpu");
    }

    [Fact]
    public void A_loss_block_that_fails_or_returns_no_tensor_is_an_error()
    {
        const string Layer = "$net = [TorchSharp.torch+nn]::Linear(6, 4); $null = $net | Add-LoKrAdapter -Config (New-LoKrConfig -R 2 -TargetModules all-linear); ";
        Host.Error("LoKr.LossNotATensor", Layer + "$net | Start-LoKrTraining -Batch 1 -Loss { param($m, $b) 'x' }");
        Host.Error("LoKr.LossNotATensor", Layer + "$net | Start-LoKrTraining -Batch 1 -Loss { }");
        ScriptResult result = Host.Run(Layer + "$net | Start-LoKrTraining -Batch 1 -Loss { throw 'mine' }");
        Assert.Equal("mine", Assert.Single(result.Errors).FullyQualifiedErrorId);
        result = Host.Run(Layer + "$net | Start-LoKrTraining -Batch 1 -Loss { [TorchSharp.torch]::zeros(2, 3).mm([TorchSharp.torch]::zeros(2, 3)) }");
        Assert.Contains("mat1 and mat2", Assert.Single(result.Errors).Exception.Message, StringComparison.Ordinal);
    }

    private string WriteBert()
    {
        string folder = TinyModel.WriteBert(Folder["bert"]);
        Host.Set("path", folder);
        return folder;
    }

    private void WriteSafetensors(string header, int bytes)
    {
        string folder = WriteBert();
        byte[] text = Encoding.UTF8.GetBytes(header.PadRight((header.Length + 7) / 8 * 8));
        File.WriteAllBytes(Path.Combine(folder, "model.safetensors"), [.. BitConverter.GetBytes((long)text.Length), .. text, .. new byte[bytes]]);
    }

    private static string Header(string file, out byte[] data)
    {
        byte[] all = File.ReadAllBytes(file);
        int length = (int)BitConverter.ToInt64(all);
        data = all[(8 + length)..];
        return Encoding.UTF8.GetString(all, 8, length).TrimEnd();
    }

    private Dictionary<string, byte[]> Snapshot() => Directory.EnumerateFiles(Folder.Path, "*", SearchOption.AllDirectories)
        .ToDictionary(file => file, File.ReadAllBytes);
}
