// Package ipvsadm is the ipvsadm language: arguments in, api requests out, listings printed.
//
// It reads command lines as ipvsadm 1.31 does, its errors and exit statuses included, and prints what it prints, column
// for column, so that scripts notice no difference. Where ipvsadm asks the kernel, this package asks an [api.Backend].
// It departs from ipvsadm in these points alone, each because the original's way breaks something:
//
//   - listings are sorted by address as the manual says, where the original compares by a difference that overflows, so
//     that 200.0.0.1 may come before 10.0.0.1;
//   - firewall marks from 2147483648 on are printed as they were given, not as negative numbers that -R refuses;
//   - -S leaves out a -b without flags that it could name, where the original prints one that -R refuses;
//   - an IPv4 address written as IPv6 (::ffff:10.0.0.1) is refused, since no packet carries it;
//   - [name]:port, which -S prints for an IPv6 address with a name, is read back.
package ipvsadm
