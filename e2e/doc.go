// Package e2e has the end-to-end tests: they build uvsd and uvsadm, run them in the lab's network namespaces as a user
// runs them, drive real traffic through them with ordinary programs, and look at the wire and at the host.
//
// A test makes its own lab with a rig: a network, its servers and a director. When the test ends the rig checks what must
// hold for every run: each frame is accounted for, uvsd ends in order, and the host is as it was before.
//
// Most run over IPv4 and over IPv6: families and everyway say by which methods, and a rig of Six speaks IPv6.
//
// They need root, or user namespaces; and the programs that scripts/test.sh installs. TestMatrix, whose servers run as users
// of their own, needs root.
package e2e
