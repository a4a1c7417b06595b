package dynamostore

// PartitionOf returns the partition key of an item.
func PartitionOf(i item) string { return i.str("pk") }
