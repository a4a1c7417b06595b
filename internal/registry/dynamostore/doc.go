// Package dynamostore keeps the registry and the assertion's signing keys in
// one DynamoDB table. It implements registry.Backend and assertion.KeyStore, and
// holds no rules.
//
//	s, err := dynamostore.Open(ctx, dynamostore.Options{Table: "sluice", Region: "eu-central-1"})
//	defer s.Close()
//
// # Keys
//
// The table has a partition key pk and a sort key sk, both strings, and time to
// live on the attribute expires. No secondary index, no stream. T is a tenant, D a device,
// E the tenant's epoch; parts are joined by # and escaped.
//
//	pk             sk        what
//	t#T            counter   sequence, number of devices, epoch, whether T exists; outlives T
//	t#T            tenant    the tenant
//	n#name         -         the tenant that has name as its id or alias
//	x#DN           -         the tenants with a trust anchor of that subject, and their group
//	tenants        T         list of all tenants, also those that are gone
//	d#E#T          D         the device, its version, and the list and generation of its credentials
//	a#E#T#type#id  -         the credential of an auth-id, in a slot per generation
//	m#E#T#group    D         membership in a gateway group
//	i#E#T#path     value, D  entry of a declared index
//	f#T            sequence  row of the change feed; expires
//	h#hour         T         T changed in that hour, its first sequence there; expires
//	garbage        E#T       an ended epoch whose items are still to be removed
//	signing-keys   kid       a signing key
//	meta           schema    version of this design, declared and complete indexes
//
// # Changes
//
// A change is one TransactWriteItems: the entity with all that hangs on it,
// the row of the feed, and the counter on condition that its sequence is still the
// one that the change was planned on. Every change of a tenant moves the
// counter, so who competes with another change of the tenant notices. Items that were
// read for the plan have conditions as well, because DynamoDB applies a
// transaction to one item after the other and a plain read may see the new
// counter beside an old item; names and trust anchors, which tenants share, have theirs.
// Who loses the race reads again, after a random pause, up to
// Options.Patience; within a process the changes of one tenant take turns. A
// transaction carries a token, so that one whose answer is lost and that is
// sent again is applied once; when all answers are lost, the token in the counter tells.
//
// A credential counts only while the device that put it is there and has the
// generation that its slot names. So a set of any size is replaced, and a device of any
// number of credentials deleted, by one write to the device; a set too large for a
// transaction is staged under its new generation before. What no longer counts
// may lie around and is overwritten when the auth-id is used again.
//
// DeleteDevices raises the epoch, which is part of every key below a tenant: all
// devices are out of reach at once. [Store.Sweep] removes them in steps.
//
// # Reads
//
// All reads are strongly consistent. [Store.Read] reads the counter first,
// then the rest in transactions, and checks that no item is newer than the counter.
//
// The feed is read by sequence, after comparing counters, so a reader that is up
// to date costs one counter for each tenant. By time it is read through the
// buckets of hours: the first change of a tenant in an hour notes that, in its
// transaction.
//
// # Cost
//
// In units for items up to 1 KB written and 4 KB read; what is read or written
// in a transaction counts twice. Tests hold the number of requests.
//
//	                      requests  read units  write units
//	Read, own credential  3         7           -            counter; tenant with auth-id; device
//	Read, device          2         5           -            counter; tenant with device
//	  each viaGroup       1         1           -
//	CreateDevice          1         -           6            counter, device, feed; the hour's first: 8
//	  first in a process  2         1           6
//	UpdateDevice          2         1           6
//	PutCredentials        2         1+n         6+2n         n credentials
//	ApplyDevices, create  2 for 49  49          4 each + 2   without credentials
//	each membership, index entry                2
//
// A tenant's counter and feed are in one partition each, which takes 1000
// write units a second until DynamoDB splits it: about 450 devices a second
// of one tenant can be created. Tenants do not slow each other down.
//
// # Rights
//
// The program needs dynamodb:GetItem, BatchGetItem, Query, PutItem,
// UpdateItem, DeleteItem, BatchWriteItem and ConditionCheckItem on the table; with
// Options.Create also CreateTable, DescribeTable and UpdateTimeToLive.
package dynamostore
