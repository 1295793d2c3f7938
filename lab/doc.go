// Package lab raises networks of clients, directors and real servers on one machine, out of network namespaces,
// bridges and veth pairs. Tests, the demo and the benchmarks of uvs run their packets in it and nowhere else.
//
// Everything is done from Go through netlink: no external program is needed. A lab needs root, or user namespaces
// (see Reexec). What it made is gone after Close; after a crash the kernel removes anonymous namespaces by itself,
// and the next lab removes named ones.
//
//	topo := lab.DR(t, lab.Config{Clients: 1, RealServers: 2}) // gone when the test ends
//	servers, err := topo.ServeHTTP(80)
//	client := topo.Clients[0].HTTPClient()
//
// The servers and clients here are ordinary ones, on the kernel's own sockets: they know nothing of uvs. The package
// imports nothing else of the project.
//
// Set-up is meant for many short tests: a topology is up in about 10 ms and addresses are usable at once.
package lab
