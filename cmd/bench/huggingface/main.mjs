// Prints what is in the header of the GGUF file named on the command line.
import { gguf } from "@huggingface/gguf";

const { metadata, tensorInfos } = await gguf(process.argv[2], { allowLocalFile: true });
console.log(metadata["general.architecture"], tensorInfos.length);
