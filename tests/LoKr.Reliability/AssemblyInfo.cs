// The tests start processes that need both cores; one test at a time keeps their figures comparable.
using LoKr.Testing;
using Xunit;
using Xunit.Sdk;
using Xunit.v3;

[assembly: Parallelization(Mode = ParallelMode.None)]
[assembly: AssemblyFixture(typeof(TorchFixture))]
