using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using Xunit;

namespace LoKr.Core.Tests.Layouts;

/// <summary>The tables of names against names that nobody's trainer writes.</summary>
public sealed class HostileNameTests
{
    private const int Length = 20_000;

    public static TheoryData<string> Names =>
    [
        "", ".", "..", "_", "\0", "\ud800", "{i}", "double_blocks.{i}.img_attn.qkv", "#", "double_blocks.#.img_attn.qkv",
        new string('1', Length), new string('.', Length), new string('_', Length), new string('é', Length),
        "double_blocks." + new string('9', Length) + ".img_attn.qkv", "double_blocks.-1.img_attn.qkv", "double_blocks.٣.img_attn.qkv", "double_blocks.0x1.img_attn.qkv",
        Repeat("diffusion_model."), Repeat("base_model.model."), Repeat("lora_unet_"), Repeat("_orig_mod."), Repeat("_orig_mod_"), Repeat("a1."), Repeat("1a_"),
        Repeat("module.") + "double_blocks.0.img_attn.qkv", Repeat("transformer.transformer_blocks.0."),
    ];

    [Theory]
    [MemberData(nameof(Names))]
    public void A_hostile_name_is_not_a_module_or_is_a_known_one(string name)
    {
        foreach (string prefix in (string[])["", "lora_unet_", "diffusion_model.", "lycoris_", "base_model.model.", "model.diffusion_model."])
        {
            string given = prefix + name;
            ModelRecognizer.OfAdapter([given]);
            ModelRecognizer.OfCheckpoint([given, given + ".weight"]);
            foreach (ModelFamily family in NameTables.All)
            {
                NameTranslator translator = new(family);
                foreach (NameMatch match in translator.Find(given))
                {
                    Assert.NotEmpty(match.Place.AllNames());
                }

                foreach (AdapterProgram program in Enum.GetValues<AdapterProgram>())
                {
                    translator.Read(program, given);
                }
            }

            ModuleNameIndex index = ModuleNameIndex.FromFiles("x", isSingleFile: true, [new(AdapterComponent.Model, null, [new(given, [4, 4]), new("double_blocks.0.img_attn.qkv", [12, 4])])]);
            Assert.True(index.Find(AdapterComponent.Model, given) is null or { WeightShape: not null });
            Assert.NotNull(index.FindByPrefix([(AdapterComponent.Model, given)]));
        }
    }

    [Fact]
    public void Thousands_of_odd_names_are_matched_in_bounded_steps()
    {
        string[] odd = [.. Enumerable.Range(0, 1000).Select(static i => $"{(char)('a' + (i % 26))}{Letters(i)}.{Letters(i * 7)}.w")];
        ModuleNameIndex index = ModuleNameIndex.FromFiles("x", isSingleFile: false, [new(AdapterComponent.Model, null, [.. odd.Select(static name => new KnownModule(name, [4, 4]))])]);
        Assert.Empty(index.FindByPrefix(odd.Select(static name => (AdapterComponent.Model, "q" + name + ".odd"))));
    }

    private static string Repeat(string part) => string.Concat(Enumerable.Repeat(part, Length / part.Length));

    private static string Letters(int number) => string.Concat(number.ToString(System.Globalization.CultureInfo.InvariantCulture).Select(static digit => (char)('a' + digit - '0')));
}
