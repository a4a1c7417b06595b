// Command pack makes the archive of a function for Lambda: the program as
// bootstrap at the top, and the files of a folder beside it. The same files make
// the same bytes, whenever and wherever they are packed.
//
//	pack -o build/aws/function.zip [-files FOLDER] build/aws/arm64/bootstrap
package main
