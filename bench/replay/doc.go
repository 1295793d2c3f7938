// Package replay asks what schedulers would have done with traffic that was recorded: captures in pcap and pcapng, and traces in
// CSV. It reads a file once from front to end in memory that doesn't depend on its length, takes connections through uvsd's own
// connection table, and offers each new one to every scheduler (package sched/trial).
package replay
