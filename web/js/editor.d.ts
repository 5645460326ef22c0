// The part of ComfyUI's editor that this extension uses.

/** A file that the server shows under /view. */
interface ResultFile {
  filename: string;
  subfolder: string;
  type: string;
}

/** What a node has shown: the lists of its `ui`. */
interface Output {
  text?: string[];
  images?: ResultFile[];
  textures?: ResultFile[];
  layout?: [number, number, string];
  seam_ratio?: (number | null)[];
  seam_visible?: boolean[];
  sheet?: ResultFile[];
  names?: string[];
  a_images?: ResultFile[];
  b_images?: ResultFile[];
  sigmas?: number[];
}

interface Widget {
  name: string;
  value: any;
  disabled?: boolean;
  serialize?: boolean;
  callback?: (value: any, ...rest: any[]) => void;
  options: Record<string, any>;
}

interface Graph {
  id: string;
  isRootGraph?: boolean;
  nodes: GraphNode[];
  getNodeById(id: any): GraphNode | null;
  setDirtyCanvas(foreground: boolean, background?: boolean): void;
}

interface GraphNode {
  id: any;
  size: [number, number];
  widgets?: Widget[];
  properties: Record<string, any>;
  graph?: Graph | null;
  subgraph?: Graph;
  inputs?: { name: string; link: number | null }[];
  outputs?: { name: string; type: string }[];
  constructor: { comfyClass?: string; nodeData?: { output_name?: string[]; output?: string[] } } & Function;
  hideOutputImages?: boolean;
  onDrawBackground?: (...rest: any[]) => void;
  onExecuted?: (output: Output) => void;
  onConfigure?: (saved: Saved) => void;
  onWidgetChanged?: (...rest: any[]) => void;
  onRemoved?: () => void;
  clone(): GraphNode | null;
  getInputNode(slot: number): GraphNode | null;
  setSize(size: [number, number]): void;
  computeSize(): [number, number];
  addDOMWidget(name: string, type: string, element: HTMLElement, options: Record<string, any>): Widget;
}

interface Saved {
  properties?: Record<string, any>;
}

interface Editor {
  rootGraph: Graph;
  graph: Graph;
  nodeOutputs: Record<string, Output>;
  extensionManager: { setting: { get(name: string): any } };
  registerExtension(extension: Record<string, any>): void;
}

interface Server extends EventTarget {
  apiURL(path: string): string;
  fetchApi(path: string): Promise<Response>;
  dispatchCustomEvent(name: string, detail: Record<string, any>): void;
}

declare module "*/scripts/app.js" {
  export const app: Editor;
}

declare module "*/scripts/api.js" {
  export const api: Server;
}
